"""Real repositories: bare mirrors, and workspaces with one commit and no future."""

from agent.repositories.checkouts import Checkout, apply, checkout, diff, pretend_version
from agent.repositories.git import RepositoryError
from agent.repositories.mirrors import Mirror, Mirrors

__all__ = ["Checkout", "Mirror", "Mirrors", "RepositoryError", "apply", "checkout", "diff", "pretend_version"]
