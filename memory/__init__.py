"""What is remembered: tasks, trajectories and the store that is the single source of truth."""
