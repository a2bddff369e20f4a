"""Distilling: from a finished attempt to memories.

`actions` says what an attempt did (`foreign` reads other agents' calls, `sheets` puts the files together), `lessons` makes
memories of it by rule, `facts` those about the repository, `by_model` lets a model improve on them.
"""

from agent.distil.by_model import ModelDistiller
from agent.distil.lessons import DISTILLER, distil

__all__ = ["DISTILLER", "ModelDistiller", "distil"]
