"""The exception tree of the daemon package."""


class DaemonError(Exception):
    """Something the owner must know; the text says what to do next."""
