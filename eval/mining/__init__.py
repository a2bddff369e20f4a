"""Mining: a git history read as tasks, each proven in the sandbox before it counts.

`mine` writes the stream file that `eval.repository_stream` reads; its schema is documented there.
"""

from eval.mining.history import Refused
from eval.mining.mine import Event, Options, mine

__all__ = ["Event", "Options", "Refused", "mine"]
