"""Correction for testing several hypotheses, by name.

A test that was planned and could not be computed (None) stays None and still counts as one of the family, as if its p were 1:
leaving it out would make the others look better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from eval.errors import EvalError


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p values adjusted so that the chance of any false positive stays at the level (Holm 1979), in the order given.

    Raises:
        EvalError: one is not between 0 and 1.
    """
    return _adjusted(p, "holm")


def benjamini_hochberg(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p values adjusted so that the expected share of false positives among positives stays at the level, for independent or
    positively dependent tests (Benjamini & Hochberg 1995), in the order given.

    Raises:
        EvalError: one is not between 0 and 1.
    """
    return _adjusted(p, "fdr_bh")


def _adjusted(p: Mapping[str, float | None], method: Literal["holm", "fdr_bh"]) -> dict[str, float | None]:
    for name, value in p.items():
        if value is not None and not 0 <= value <= 1:
            raise EvalError(f"{name}: p is {value}, which is not between 0 and 1")
    if not p:
        return {}
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests([1.0 if value is None else value for value in p.values()], method=method)[1]
    return {name: None if p[name] is None else float(value) for name, value in zip(p, adjusted, strict=True)}
