"""The exception tree of the eval package."""


class EvalError(Exception):
    """Something the owner must know; the text says what to do next."""
