"""Every function template, in the order in which the world draws from them."""

from __future__ import annotations

from eval.pocket.functions import Template
from eval.pocket.templates import amounts, checks, lists, lookups

TEMPLATES: tuple[Template, ...] = (
    amounts.total,
    amounts.total_by_index,
    checks.count_compared,
    lists.keep_compared,
    lists.without,
    lists.up_to,
    amounts.average,
    amounts.extreme,
    lists.first_items,
    lists.last_items,
    checks.between,
    amounts.clamp,
    amounts.binary,
    amounts.two_step,
    lookups.lookup,
    lookups.lookup_checked,
    lookups.tally,
    lookups.joined,
    lookups.repeated,
    checks.via_helper,
    checks.position,
    checks.all_compared,
    amounts.spread,
    lists.running,
    lists.steps,
    amounts.percent,
    lists.merged,
    checks.guarded,
)
