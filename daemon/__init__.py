"""Life: the command line, and later the wake/sleep state machine."""
