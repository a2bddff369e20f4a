"""The states of the daemon, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What the daemon is doing."""

    STARTING = "starting"
    AWAKE = "awake"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"


FOLLOWING: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.AWAKE, State.FALLING_ASLEEP, State.PAUSED, State.STOPPING}),
    State.AWAKE: frozenset({State.FALLING_ASLEEP, State.PAUSED, State.STOPPING}),
    State.FALLING_ASLEEP: frozenset({State.ASLEEP, State.WAKING, State.STOPPING}),
    State.ASLEEP: frozenset({State.WAKING, State.PAUSED, State.STOPPING}),
    State.WAKING: frozenset({State.AWAKE, State.FALLING_ASLEEP, State.PAUSED, State.STOPPING}),
    State.PAUSED: frozenset({State.AWAKE, State.FALLING_ASLEEP, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.STARTING}),
}
"""A process that was killed leaves its last state in the store; the next one begins with `starting` all the same."""
