"""Paired non-inferiority, looked at several times: when a claim is accepted, rejected, or left undecided.

Per item a candidate loses (only the base is right), gains (only the candidate is), or ties; the drop is the difference of
the two shares. A half-right item counts as half: the variance is then taken for larger than it is, never for smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolidation.gate_config import Tolerance as Tolerance

Array = NDArray[np.float64]
EARLY, LATE = 2.0, 16.0
"""Powers of the two parts of the spending function."""
EARLY_SHARE = 0.3
GRID = 301
TAIL = 9.0


class Decision(IntEnum):
    """What a look gives."""

    GO_ON = 0
    ACCEPTED = 1
    REJECTED = -1
    UNDECIDED = 2


def score(n: ArrayLike, lost: ArrayLike, gained: ArrayLike, drop: float) -> Array:
    """Score statistic of the hypothesis that the true drop is `drop`; negative where less was measured.

    Tango (1998), Statistics in Medicine 17, section 2: (lost - gained - n d) / sqrt(n (2 p + d - d^2)), where p is the
    share of gains with the highest likelihood at that drop.
    """
    n, lost, gained = np.asarray(n, float), np.asarray(lost, float), np.asarray(gained, float)
    b = lost + gained - drop * (2 * n - lost + gained)
    p = (np.sqrt(np.maximum(b * b + 8 * n * gained * drop * (1 - drop), 0)) + b) / (4 * n)
    variance = np.maximum(n * (2 * p + drop - drop * drop), 1e-12)
    return np.asarray((lost - gained - n * drop) / np.sqrt(variance))


def upper_bound(n: float, lost: float, gained: float, z: float) -> float:
    """The largest drop that the score test at critical value z does not refuse (bisection to 1e-9), at most 1."""
    low, high = (lost - gained) / n, 1.0
    if z <= 0 or low >= 1:
        return min(max(low, -1.0), 1.0)
    while high - low > 1e-9:
        middle = (low + high) / 2
        refused = middle > 0 and float(score(n, lost, gained, middle)) < -z
        refused |= middle <= 0 and float(score(n, gained, lost, -middle)) > z
        low, high = (low, middle) if refused else (middle, high)
    return high


def chance_z(lost: ArrayLike, gained: ArrayLike) -> Array:
    """The measured drop in standard errors under no true drop (McNemar), with one more discordant item than was seen."""
    lost, gained = np.asarray(lost, float), np.asarray(gained, float)
    return np.asarray((lost - gained) / np.sqrt(lost + gained + 1))


def spent(fraction: float, alpha: float) -> float:
    """Error spent up to this share of the items (Lan & DeMets 1983): alpha (s t^2 + (1 - s) t^16).

    Two terms of the power family (Kim & DeMets 1987). The first lets clear cases pass early, the second keeps most for
    the end, where a claim with many discordant items needs it. Chosen by `sleepyctl bench gate`.
    """
    return float(alpha * (EARLY_SHARE * fraction**EARLY + (1 - EARLY_SHARE) * fraction**LATE))


@lru_cache(maxsize=64)
def boundaries(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Critical values at each look for an error of `alpha` in all (Armitage, McPherson & Rowe 1969, by the trapezium rule).

    `fractions` are shares of the items, increasing, the last one 1.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    found: list[float] = []
    grid, density, before = np.zeros(1), np.ones(1), 0.0
    for t in fractions:
        spread = np.sqrt(t - before)
        wanted = spent(t, alpha) - (spent(before, alpha) if found else 0.0)
        step = grid[1] - grid[0] if found else 1.0
        mass = density * step
        if found:
            mass[[0, -1]] /= 2

        def excess(edge: float, grid: Array = grid, mass: Array = mass, sd: float = spread, wanted: float = wanted) -> float:
            return float(np.sum(mass * ndtr((grid - edge) / sd))) - wanted

        edge = float(brentq(excess, -TAIL, TAIL + 3)) if found else float(-ndtri(wanted) * spread)
        new = np.linspace(min(-TAIL * np.sqrt(t), edge - 1), edge, GRID)
        density = np.exp(-(((new[:, None] - grid) / spread) ** 2) / 2) @ mass / (spread * np.sqrt(2 * np.pi))
        grid, before = new, t
        found.append(edge / float(np.sqrt(t)))
    return tuple(found)


@dataclass(frozen=True)
class Design:
    """The looks at up to `items` items. Stopping for futility never raises the error: it only takes acceptances away."""

    items: int
    tolerance: Tolerance
    looks: int
    futility: float
    """Stop where the chance to be accepted after all, if there is no drop, is below this."""

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Items examined at each look; at no look fewer than the tolerance asks for, unless there are no more."""
        every = sorted({max(1, round(self.items * look / self.looks)) for look in range(1, self.looks + 1)})
        enough = [size for size in every if size >= self.tolerance.min_tasks]
        return tuple(enough or [self.items])

    @cached_property
    def critical(self) -> tuple[float, ...]:
        """Critical values of the score test at each look."""
        return boundaries(tuple(size / self.items for size in self.sizes), 1 - self.tolerance.confidence)

    def bound(self, look: int, lost: float, gained: float) -> float:
        """Upper bound of the drop that holds under all looks together (repeated confidence bound, Jennison & Turnbull 1989)."""
        return upper_bound(self.sizes[look], lost, gained, self.critical[look])

    def decide(self, look: int, lost: ArrayLike, gained: ArrayLike) -> NDArray[np.int64]:
        """The `Decision` at a look (from 0), elementwise over as many nights as there are tallies."""
        lost, gained = np.asarray(lost, float), np.asarray(gained, float)
        n, rule = self.sizes[look], self.tolerance
        worse = lost - gained
        harmed = (worse >= rule.margin * n) | (chance_z(lost, gained) >= rule.chance)
        accepted = ~harmed & (score(n, lost, gained, rule.limit) < -self.critical[look])
        over = np.full(lost.shape, True) if n == self.items else self._hopeless(n, lost, gained)
        stopped = np.where(harmed, int(Decision.REJECTED), int(Decision.UNDECIDED))
        return np.where(accepted, int(Decision.ACCEPTED), np.where(over, stopped, int(Decision.GO_ON)))

    def _hopeless(self, n: int, lost: Array, gained: Array) -> NDArray[np.bool_]:
        """Whether the conditional power under no drop is below `futility` (Lan, Simon & Halperin 1982)."""
        from scipy.special import ndtr

        rule = self.tolerance
        discordance = (lost + gained + 1) / (n + 1)
        at_limit = np.sqrt(np.maximum(discordance - rule.limit**2, discordance / 2) / self.items)
        passing = np.minimum(
            np.minimum(rule.margin, rule.chance * np.sqrt(discordance / self.items)), rule.limit - self.critical[-1] * at_limit
        )
        room = passing * self.items - (lost - gained)
        return np.asarray(ndtr(room / np.sqrt(discordance * (self.items - n))) < self.futility)
