"""The exception tree of the daemon package."""


class DaemonError(Exception):
    """Something the owner must know; the text says what to do next."""


class OwnedError(DaemonError):
    """Another process owns the state directory."""


class NoDaemonError(DaemonError):
    """No daemon runs on this state directory."""


class RefusedError(DaemonError):
    """The daemon understood what was asked and will not do it now."""


class FilterError(DaemonError):
    """A filter that could never match; the text names the nearest one that could."""
