"""The full toolkit: for models that were not trained on the terse one, and for repositories of any size and language."""

from agent.full.session import FULL, FULL_NATIVE, Full

__all__ = ["FULL", "FULL_NATIVE", "Full"]
