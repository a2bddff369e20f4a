"""Measures of a life from its attempts and nights: how it went, and what it cost. Each raises `Absent` where it has no value.

Attempts are those of the last examination unless it is said otherwise, at tasks of all blocks; those that the infrastructure
failed are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from eval.experiments.life import NightRow
from eval.experiments.lived import Absent, Lived, counted
from eval.experiments.transfers import AFTER, drifting, final_gain
from eval.metrics import attempts
from eval.metrics.rows import Attempted


def resolve_rate(lived: Lived) -> float:
    """Share of the tasks of all blocks that are resolved after the last night."""
    return counted(attempts.resolve_rate, lived.attempts())


def resolve_rate_test(lived: Lived) -> float:
    """Share of the tasks of never-learnt blocks that are resolved after the last night."""
    if not lived.never:
        raise Absent("every block was learnt")
    return counted(attempts.resolve_rate, lived.attempts(blocks=lived.never))


def steps(lived: Lived) -> float:
    """Mean turns of an attempt, resolved or not."""
    return _mean(lived, lambda attempt: attempt.steps)


def tokens(lived: Lived) -> float:
    """Mean tokens of an attempt, read and written."""
    return _mean(lived, lambda attempt: attempt.prompt_tokens + attempt.completion_tokens)


def steps_resolved(lived: Lived) -> float:
    """Mean turns of the attempts that resolved their task: others in each arm, so no arm is compared by it alone."""
    return counted(attempts.steps, lived.attempts())


def tokens_resolved(lived: Lived) -> float:
    """Mean tokens of the attempts that resolved their task."""
    return counted(attempts.tokens, lived.attempts())


def tue_time(lived: Lived) -> float:
    """Median seconds of resolved attempts, divided by median seconds of all (the paper's TUE)."""
    return counted(attempts.tue_time, lived.attempts())


def prompt_tokens(lived: Lived) -> float:
    """Mean tokens that an attempt read."""
    return _mean(lived, lambda attempt: attempt.prompt_tokens)


def seconds(lived: Lived) -> float:
    """Mean seconds of an attempt, of model and tools."""
    return _mean(lived, lambda attempt: attempt.seconds)


def malformed(lived: Lived) -> float:
    """Share of turns from which no call could be read."""
    return _share(lived, lambda attempt: attempt.malformed)


def conflicts(lived: Lived) -> float:
    """Calls that contradict the workspace, per turn."""
    return _share(lived, lambda attempt: attempt.conflicts)


def stale_conflicts(lived: Lived) -> float:
    """Drift: calls per turn that contradict the changed repository under the adapter of the old one, minus the base's."""
    drifting(lived)
    rates = [_share_of(lived.attempts(night, (AFTER,)), lambda attempt: attempt.conflicts) for night in (0, 1)]
    return rates[1] - rates[0]


def useful_calls(lived: Lived) -> float:
    """Share of turns whose call was carried out."""
    return counted(attempts.useful_calls, lived.attempts())


def useful_time(lived: Lived) -> float:
    """Share of the time that went into calls which were carried out."""
    return counted(attempts.useful_time, lived.attempts())


def training_loss(lived: Lived) -> float:
    """Training loss at the end of the last night that trained."""
    if (loss := lived.nights[-1].loss_last) is None:
        raise Absent("the night noted no loss")
    return loss


def loss_retention(lived: Lived) -> float:
    """How much of the base's loss on what earlier nights taught is gone after the last one: 1 - loss / base's, mean over
    blocks."""
    night = lived.nights[-1]
    pairs = [(loss, night.base_losses[block]) for block, loss in night.losses.items() if night.base_losses.get(block)]
    if not pairs:
        raise Absent("no losses were measured on what earlier nights taught")
    return fmean(1 - loss / base for loss, base in pairs)


def examples(lived: Lived) -> float:
    """Training examples of all nights."""
    return _total(lived, lambda night: night.examples)


def train_tokens(lived: Lived) -> float:
    """Tokens that went through training in all nights; every epoch counts."""
    return _total(lived, lambda night: night.tokens)


def train_seconds(lived: Lived) -> float:
    """Seconds of training in all nights."""
    return _total(lived, lambda night: night.seconds)


def overhead(lived: Lived) -> float:
    """Seconds beside training (Fisher information, probing, SVD, routing), per second of training."""
    if not (trained := _total(lived, lambda night: night.seconds)):
        raise Absent("no training time was measured")
    return _total(lived, lambda night: night.extra_seconds) / trained


def adapter_bytes(lived: Lived) -> float:
    """Size of what the last night that trained left."""
    return float(lived.nights[-1].bytes)


def rank(lived: Lived) -> float:
    """Rank of the adapter that the last night that trained left."""
    if not (found := lived.nights[-1].rank):
        raise Absent("the night noted no rank")
    return float(found)


def gain_per_rank(lived: Lived) -> float:
    """Final gain, divided by the rank of the adapter: information for each parameter."""
    return final_gain(lived) / rank(lived)


def router_accuracy(lived: Lived) -> float:
    """Share of held-out issues that the router of the last night sends where they belong."""
    if (found := lived.nights[-1].notes.get("router_accuracy")) is None:
        raise Absent("the last night measured no router")
    return found


def compression_kept(lived: Lived) -> float:
    """Share of the squared norm of the adapters that compressions kept, mean over compressions: of weights, not of skills."""
    kept = [value for night in lived.nights for name, value in night.notes.items() if name.startswith("energy_")]
    if not kept:
        raise Absent("no night compressed anything")
    return fmean(kept)


def repeat_error_rate(lived: Lived) -> float:
    """Share of the errors that had been made before in an earlier task of the same repository, in the same examination."""
    return counted(attempts.repeat_error_rate, lived.attempts())


def median_steps_to_green(lived: Lived) -> float:
    """Median turns up to the first test run that passed; never counts as infinitely many."""
    return counted(attempts.median_steps_to_green, lived.attempts())


def _mean(lived: Lived, of: Callable[[Attempted], float]) -> float:
    return fmean(of(attempt) for attempt in lived.attempts())


def _share(lived: Lived, of: Callable[[Attempted], float]) -> float:
    return _share_of(lived.attempts(), of)


def _share_of(found: Sequence[Attempted], of: Callable[[Attempted], float]) -> float:
    if not (calls := sum(attempt.calls for attempt in found)):
        raise Absent("no attempt took a turn")
    return sum(of(attempt) for attempt in found) / calls


def _total(lived: Lived, of: Callable[[NightRow], float]) -> float:
    return float(sum(of(night) for night in lived.nights))
