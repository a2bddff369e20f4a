"""What is measured of a life, by name: each a function of its rows alone.

A name is `NAME`, `NAME@ARM` (another arm than skill), `NAME[KIND]` (tasks of one kind only), or `NAME[KIND]@ARM`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eval.errors import EvalError
from eval.experiments import costs, transfers
from eval.experiments.life import Life, LifeConfig
from eval.experiments.lived import Absent, Behind, Lived
from eval.metrics.continual import Measure
from memory.arms import Arm

Better = Literal["higher", "lower", "none"]
Of = Callable[[Lived], float]
ACROSS = {
    "knee": "the level of a numeric factor at which the curve bends; `knee:MEASURE`, `knee:MEASURE/FACTOR`",
    "p_value": "p of arm against base on the same tasks, never-learnt blocks where there are any; `p_value@ARM`",
    "p_variants": "smallest p of all pairs of variants, adjusted by Holm; of the primary measure, or `p_variants:MEASURE`",
}
"""Measures of all lives together, which only criteria may name."""
_NAME = re.compile(r"(?P<name>\w+)(?:\[(?P<kind>[^\]]+)\])?(?:@(?P<arm>\w+))?")


@dataclass(frozen=True)
class Metric:
    """A measure: its unit, which way is better, and what it is in words; for shares of tasks, or of what was done at them,
    which tasks these are."""

    unit: str
    better: Better
    of: Of
    behind: Behind | None = None

    def measured(self, lived: Lived) -> Measure:
        """Its value for an arm of a life, or why there is none."""
        try:
            return Measure(self.of(lived), "")
        except Absent as absent:
            return Measure(None, str(absent))

    def at_least(self, lived: Lived) -> float | None:
        """The least that a value can be which is absent, where that is known."""
        try:
            self.of(lived)
        except Absent as absent:
            return absent.at_least
        return None

    @property
    def text(self) -> str:
        """What it is, in words."""
        return " ".join((self.of.__doc__ or "").split())


MEASURES: dict[str, Metric] = {
    "acc": Metric("share", "higher", transfers.acc, "all"),
    "forward_transfer": Metric("share", "higher", transfers.forward_transfer, "never"),
    "gain": Metric("share", "higher", transfers.gain, "learnt"),
    "final_gain": Metric("share", "higher", transfers.final_gain, "learnt"),
    "forgetting": Metric("share", "lower", transfers.forgetting, "earlier"),
    "forgetting_net": Metric("share", "lower", transfers.forgetting_net, "earlier"),
    "forgotten": Metric("share", "lower", transfers.forgotten, "learnt"),
    "forgotten_net": Metric("share", "lower", transfers.forgotten_net, "learnt"),
    "backward_transfer": Metric("share", "higher", transfers.backward_transfer, "earlier"),
    "aulc": Metric("share", "higher", transfers.aulc, "learnt"),
    "plasticity": Metric("share", "higher", transfers.plasticity, "learnt"),
    "stability": Metric("share", "higher", transfers.stability, "earlier"),
    "clf_beta": Metric("share", "higher", transfers.clf_beta, "learnt"),
    "cl_score": Metric("points", "higher", transfers.cl_score),
    "retention": Metric("share", "higher", transfers.retention, "gained"),
    "retention_worst": Metric("share", "higher", transfers.retention_worst, "gained"),
    "retention_rate": Metric("share", "higher", transfers.retention_rate, "learnt"),
    "retention_min": Metric("share", "higher", transfers.retention_min, "learnt"),
    "base_skills": Metric("share", "higher", transfers.base_skills, "skills"),
    "stale_change": Metric("share", "higher", transfers.stale_change, "after"),
    "recovered": Metric("share", "higher", transfers.recovered, "all"),
    "recovery_sessions": Metric("sessions", "lower", transfers.recovery_sessions),
    "stale_conflicts": Metric("per turn", "lower", costs.stale_conflicts),
    "resolve_rate": Metric("share", "higher", costs.resolve_rate, "all"),
    "resolve_rate_test": Metric("share", "higher", costs.resolve_rate_test, "never"),
    "steps": Metric("turns per attempt", "lower", costs.steps),
    "tokens": Metric("tokens per attempt", "lower", costs.tokens),
    "steps_resolved": Metric("turns per attempt", "lower", costs.steps_resolved),
    "tokens_resolved": Metric("tokens per attempt", "lower", costs.tokens_resolved),
    "tue_time": Metric("ratio", "lower", costs.tue_time),
    "prompt_tokens": Metric("tokens per attempt", "lower", costs.prompt_tokens),
    "seconds": Metric("seconds per attempt", "lower", costs.seconds),
    "malformed": Metric("share of turns", "lower", costs.malformed),
    "conflicts": Metric("per turn", "lower", costs.conflicts),
    "repeat_error_rate": Metric("share", "lower", costs.repeat_error_rate, "all"),
    "useful_calls": Metric("share", "higher", costs.useful_calls, "all"),
    "useful_time": Metric("share", "higher", costs.useful_time),
    "median_steps_to_green": Metric("turns", "lower", costs.median_steps_to_green),
    "training_loss": Metric("nats per token", "lower", costs.training_loss),
    "loss_retention": Metric("share", "higher", costs.loss_retention),
    "examples": Metric("examples", "none", costs.examples),
    "train_tokens": Metric("tokens", "lower", costs.train_tokens),
    "train_seconds": Metric("seconds", "lower", costs.train_seconds),
    "overhead": Metric("share", "lower", costs.overhead),
    "adapter_bytes": Metric("bytes", "lower", costs.adapter_bytes),
    "rank": Metric("ranks", "lower", costs.rank),
    "gain_per_rank": Metric("share per rank", "higher", costs.gain_per_rank),
    "router_accuracy": Metric("share", "higher", costs.router_accuracy, "all"),
    "compression_kept": Metric("share of energy", "higher", costs.compression_kept),
}
"""By name. Shares are of 1; differences to the base or to row 0 are shares too, and may be negative."""


@dataclass(frozen=True)
class Asked:
    """A measure's name, read."""

    name: str
    arm: Arm = Arm.SKILL
    kind: str = ""

    @property
    def metric(self) -> Metric:
        """What it names."""
        return MEASURES[self.name]


def asked(name: str) -> Asked:
    """Read the name of a measure of one life.

    Raises:
        EvalError: there is no such measure or arm; the text names the nearest.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["name"] not in MEASURES:
        raise EvalError(f"no measure {name!r}{_nearest(found['name'] if found else name, [*MEASURES, *ACROSS])}")
    if found["arm"] and found["arm"] not in list(Arm):
        raise EvalError(f"{name}: no arm {found['arm']!r}{_nearest(found['arm'], list(Arm))}")
    return Asked(found["name"], Arm(found["arm"] or "skill"), found["kind"] or "")


def check_measure(name: str) -> None:
    """Whether a registration may name it: a measure of one life, or one of `ACROSS` with what it is of.

    Raises:
        EvalError: there is no such measure; the text names the nearest.
    """
    head, _, rest = name.partition(":")
    if head in ACROSS:
        if rest:
            asked(rest.partition("/")[0])
    elif head.partition("@")[0] == "p_value":
        asked(head.replace("p_value", "resolve_rate", 1))
    else:
        asked(name)


def measured(name: str, life: Life, config: LifeConfig | None = None) -> Measure:
    """The value of a measure of a life, or why there is none. `config` tells what the rows cannot: sessions between nights.

    Raises:
        EvalError: there is no such measure.
    """
    wanted = asked(name)
    return wanted.metric.measured(Lived(life, wanted.arm, wanted.kind, config))


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
