"""Training examples, with where each one comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.model import Message
from agent.session import NOT_DONE
from agent.shown import told
from memory.hashing import content_hash
from memory.trajectories import Trajectory

Source = Literal["agent", "merged_fix", "rehearsal"]
Format = Literal["T", "A", "B", "C", "D", "E"]
"""How an attempt is told: T the agent's own turns, A question and answer, B with its reasoning, C what to prefer to what,
D a failure, its diagnosis and the remedy, E with what is known of the project."""
OFFLINE = "offline"


class Pair(BaseModel):
    """One example: a conversation, of which only the agent's own turns are trained on.

    `source` says whose solution it tells; `content` identifies it whatever it was made from.
    `untaught` numbers the agent's turns (from 0) that are mistakes: they are read, never learnt.
    In format C the last message is what to say, and `rejected` what not to say in its place. `failed` are the other attempts
    that it may quote. `made_by` names the synthesiser, `confidence` (0 to 1) is how sure it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    repo: str
    trajectory_id: str
    source: Source
    messages: tuple[tuple[Literal["system", "user", "assistant", "tool"], str], ...] = Field(min_length=2)
    untaught: tuple[int, ...] = ()
    format: Format = "T"
    rejected: str = ""
    failed: tuple[str, ...] = ()
    made_by: str = OFFLINE
    confidence: float = Field(default=1.0, ge=0, le=1)

    @property
    def attempts(self) -> frozenset[str]:
        """Ids of all attempts that it goes back to."""
        return frozenset((self.trajectory_id, *self.failed))

    @property
    def content(self) -> str:
        """Hash of what is said alone."""
        return content_hash([self.messages, self.rejected] if self.rejected else self.messages)

    def conversation(self) -> list[Message]:
        """The messages as the turn protocol has them."""
        return [Message(role, text) for role, text in self.messages]


def pairs_of(trajectory: Trajectory, source: Source) -> list[Pair]:
    """A resolved trajectory as examples, word for word as the agent was shown it.

    One, or where old observations were left out on the way, one for each stretch between (see `agent.shown`): a turn
    is learnt from what was shown before it, and from nothing else. Calls that could not be carried out are not learnt.
    """
    refused = {step.number for step in trajectory.steps if step.malformed or step.observation.startswith(NOT_DONE)}
    return [
        Pair(
            task_id=trajectory.task_id,
            repo=trajectory.repo,
            trajectory_id=trajectory.id,
            source=source,
            messages=tuple((m.role, m.content) for m in stretch.messages),
            untaught=tuple(sorted({*range(stretch.first), *refused})),
        )
        for stretch in told(trajectory)
    ]


Encoder = Callable[[Sequence[Message]], tuple[list[int], list[bool]]]
"""Messages to token ids and the mask of the agent's own words; the served model provides it."""


def without_turns(own: Sequence[bool], turns: Sequence[int]) -> list[bool]:
    """The mask of the agent's own words without some of its turns; each run of own words is one turn."""
    kept: list[bool] = []
    turn, before = -1, False
    for mine in own:
        turn += mine and not before
        kept.append(mine and turn not in turns)
        before = mine
    return kept
