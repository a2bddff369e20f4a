"""The exception tree of the consolidation package."""


class ConsolidationError(Exception):
    """Something the owner must know; the text says what to do next."""


class TrainingRefused(ConsolidationError):
    """Training would be, or turned out to be, meaningless; nothing was put to work."""


class TrainingCrashed(ConsolidationError):
    """The training process died; the same job can be tried again."""


class AdapterError(ConsolidationError):
    """An adapter folder is missing, damaged, or not what it claims to be."""


class SynthesisError(ConsolidationError):
    """Pairs could not be made, because the model that makes them cannot be used; those that were made are kept."""
