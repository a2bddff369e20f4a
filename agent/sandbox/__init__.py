"""Where model-written code runs: rungs of a ladder, each probed by running it before it is trusted."""

from agent.sandbox.base import ExecResult, Limits, Sandbox
from agent.sandbox.ladder import probe

__all__ = ["ExecResult", "Limits", "Sandbox", "probe"]
