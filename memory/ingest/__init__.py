"""Other agents' sessions: read by versioned readers, redacted, and told as trajectories of ours.

`sessions` says what a reader makes of a file, `redaction` what is taken out of it, `ingest` finds, reads and keeps files.
"""
