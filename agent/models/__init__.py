"""Model backends; each implements the `Model` seam."""
