"""Training strategies: what a night trains, from what, and starting where. One file each."""
