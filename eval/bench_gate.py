"""The gate on simulated nights: `sleepyctl bench gate`. `eval.bench_gate_card` writes it down.

Each night is a tally of items lost and gained, block by block, decided by the gate's own `Design`. Drops, discordances and
rates are shares (0.05 is 5 points), items are counts.
"""

from __future__ import annotations

import math
import time
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from consolidation.gate import GateConfig
from consolidation.sequential import Decision, Design
from memory.hashing import content_hash

ITEMS = 164 + 427
"""Of the two published benchmarks of programming that are guards of one claim."""
DROPS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.167)
DISCORDANCES = (0.02, 0.05, 0.10, 0.15, 0.20)


class Scenario(BaseModel):
    """Nights of one kind. `discordance` is the share of items lost or gained, `true_drop` that lost less that gained.

    `best_power` is how often the most powerful single test of the bound alone, on all items, accepts (Neyman & Pearson, normal
    approximation); no gate that keeps its promise can accept more often by more than chance.
    """

    true_drop: float
    discordance: float
    accept_rate: float
    undecided_rate: float
    reject_rate: float
    items_mean: float
    items_full: int
    nights: int
    best_power: float


class GateBench(BaseModel):
    """The whole report; `cost` is the mean over the scenarios of items asked, as a share of all."""

    scenarios: list[Scenario]
    cost: float
    cost_no_drop: float
    seed: int
    gate: GateConfig
    config_hash: str
    wall_seconds: float


def simulate(
    design: Design, drop: float, discordance: float, nights: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decisions and items asked of independent nights; both of shape (nights,)."""
    shares = ((discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance)
    tally = np.zeros((nights, 3), np.int64)
    decisions = np.full(nights, int(Decision.GO_ON))
    asked = np.zeros(nights, np.int64)
    before = 0
    for look, size in enumerate(design.sizes):
        on = decisions == Decision.GO_ON
        tally[on] += rng.multinomial(size - before, shares, size=int(on.sum()))
        decisions[on] = design.decide(look, tally[on, 0], tally[on, 1])
        asked[on] = before = size
    return decisions, asked


def best_power(items: int, drop: float, discordance: float, config: GateConfig) -> float:
    """Chance that the score test of the bound accepts on all items, if discordance were known."""
    at_limit = math.sqrt((max(discordance, config.limit) - config.limit**2) / items)
    truly = math.sqrt(max(discordance - drop**2, 1e-12) / items)
    critical = config.limit - NormalDist().inv_cdf(config.confidence) * at_limit
    return NormalDist().cdf((critical - drop) / truly)


def scenarios() -> list[tuple[float, float]]:
    """True drop and discordance, which cannot be below the drop."""
    return [(drop, share) for drop in DROPS for share in sorted({max(drop, share) for share in DISCORDANCES})]


def bench_gate(config: GateConfig, nights: int, seed: int, items: int = ITEMS) -> GateBench:
    """Simulate every scenario."""
    began = time.monotonic()
    design = Design(items, config, config.looks, config.futility)
    rows: list[Scenario] = []
    for number, (drop, discordance) in enumerate(scenarios()):
        decisions, asked = simulate(design, drop, discordance, nights, np.random.default_rng([seed, number]))
        rows.append(
            Scenario(
                true_drop=drop,
                discordance=discordance,
                accept_rate=float((decisions == Decision.ACCEPTED).mean()),
                undecided_rate=float((decisions == Decision.UNDECIDED).mean()),
                reject_rate=float((decisions == Decision.REJECTED).mean()),
                items_mean=round(float(asked.mean()), 1),
                items_full=items,
                nights=nights,
                best_power=round(best_power(items, drop, discordance, config), 4),
            )
        )

    def cost(of: list[Scenario]) -> float:
        return round(sum(row.items_mean / row.items_full for row in of) / len(of), 4)

    return GateBench(
        scenarios=rows,
        cost=cost(rows),
        cost_no_drop=cost([row for row in rows if row.true_drop == 0]),
        seed=seed,
        gate=config,
        config_hash=content_hash([config, nights, seed, items]),
        wall_seconds=round(time.monotonic() - began, 1),
    )
