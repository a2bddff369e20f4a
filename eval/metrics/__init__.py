"""What is measured of an agent that goes on learning: one attempt, one condition, a whole life."""
