"""Pre-registered experiments: what is claimed before, the lives that test it, and what came of it."""
