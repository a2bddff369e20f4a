"""Putting an adapter to work on a server that other processes ask."""

from consolidation.errors import ConsolidationError


class PublishError(ConsolidationError):
    """An adapter could not be put to work; what was live still is."""
