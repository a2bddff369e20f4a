"""Which guards examine a candidate here: it depends on what its model speaks, and on which benchmarks are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from consolidation.guards import Guard
from eval.coding.guards import CodingGuard
from eval.coding.problems import Benchmark, has
from eval.errors import EvalError
from eval.guard_config import GuardConfig as GuardConfig
from eval.guards import BaseSkillGuard
from eval.play import Player
from eval.tool_format.guard import ToolFormatGuard

BENCHMARKS: tuple[Benchmark, ...] = ("humaneval", "mbpp")


@dataclass(frozen=True)
class Opened:
    """The guards that apply, and for each that would but cannot be held here, why."""

    guards: tuple[Guard, ...]
    left_out: tuple[str, ...] = ()

    def named(self, name: str) -> Guard:
        """The guard of a name.

        Raises:
            EvalError: none here has it; the text says which there are.
        """
        for guard in self.guards:
            if guard.name == name:
                return guard
        why = "".join(f"; {text}" for text in self.left_out)
        raise EvalError(f"no guard {name!r} here; there are {', '.join(guard.name for guard in self.guards)}{why}")


def open_guards(config: GuardConfig, player: Player, data: Path, repos: Sequence[str], seed: int = 0) -> Opened:
    """The guards of the player's model: for one that speaks tersely the base skills of the pocket world, for any other the
    programming benchmarks whose files are in `data`; for both the format of their calls.

    `repos` are the pocket repositories, `seed` decides the order and what is drawn.
    """
    model, budget = player.model, player.budget
    form = ToolFormatGuard(
        model, seed, config.format_seeds, config.format_temperature, budget.turn_tokens, player.width, player.mixtures
    )
    if model.speaks == "terse":
        return Opened((BaseSkillGuard(player, tuple(repos), config.tasks, seed), form))
    try:
        sandbox: Sandbox = probe(trusted_generated=False)
    except SandboxError as error:
        return Opened((form,), (str(error),))
    coding = [
        CodingGuard(
            name,
            data,
            model,
            sandbox,
            seed=seed,
            count=config.problems,
            tokens=config.answer_tokens,
            block=player.width,
            programs=config.programs,
            mixtures=player.mixtures,
        )
        for name in BENCHMARKS
        if has(name, data)
    ]
    missing = [f"{name}: no file in {data}; run `sleepyctl data fetch {name}`" for name in BENCHMARKS if not has(name, data)]
    return Opened((*coding, form), tuple(missing))
