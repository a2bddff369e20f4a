"""Two-way analysis of variance: repository x model, on one value a run (forward transfer)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from eval.statistics.tested import finite, is_flat

SumsOfSquares = Literal[2, 3]


class Run(BaseModel):
    """One observation: the levels of the two factors, and the value. Runs are taken as independent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: str
    b: str
    value: float


class Source(BaseModel):
    """A row of the table.

    Effect sizes: partial eta squared is SS / (SS + SS_error); omega squared is (SS - df MS_error) / (SS_total + MS_error)
    (Hays 1994), negative where F < 1 and left so. SS_total is of the values around their mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sum_of_squares: float
    df: int
    f: float | None
    p: float | None
    partial_eta_squared: float | None
    omega_squared: float | None


class Anova(BaseModel):
    """The table. `missing` are cells without a run; `interaction` says whether one could be tested, `why` what could not be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[Source, ...] = ()
    type: SumsOfSquares
    n: int
    balanced: bool
    residual_sum_of_squares: float | None = None
    residual_df: int | None = None
    missing: tuple[tuple[str, str], ...] = ()
    interaction: bool = False
    why: str = ""


def two_way_anova(runs: Sequence[Run], names: tuple[str, str] = ("repository", "model"), of_type: SumsOfSquares = 2) -> Anova:
    """Main effects and, where it can be told from error, their interaction.

    Type 2 sums of squares leave out what the other factor explains; type 3 (sum contrasts) also what the interaction explains.
    They are equal if every cell has as many runs. Where cells are missing neither interaction nor type 3 mean anything: main
    effects of type 2 are given, and the cells are named. One run a cell leaves the interaction as the error.

    Raises:
        EvalError: a value is no finite number.
    """
    values = finite([run.value for run in runs], "value")
    counts = Counter((run.a, run.b) for run in runs)
    levels = [sorted({run.a for run in runs}), sorted({run.b for run in runs})]
    missing = tuple((a, b) for a in levels[0] for b in levels[1] if not counts[a, b])
    crossed = not missing and len(runs) > len(counts)
    kind: SumsOfSquares = of_type if crossed else 2
    blank = Anova(type=kind, n=len(runs), balanced=not missing and len(set(counts.values())) <= 1, missing=missing)
    if min(map(len, levels)) < 2:
        short = [f"{name}: {len(found)}" for name, found in zip(names, levels, strict=True) if len(found) < 2]
        return blank.model_copy(update={"why": f"each factor needs two levels ({', '.join(short)})"})
    if is_flat(values):
        return blank.model_copy(update={"why": f"every run has the value {values[0]:g}"})
    table = _fitted(runs, crossed, kind)
    if isinstance(table, str):
        return blank.model_copy(update={"why": table})
    (*effects, (_, error, error_df, _, _)), total = table, _around_mean(values)
    sources = []
    for label, (_, squares, df, f, p) in zip((*names, " x ".join(names)), effects, strict=False):
        mean_error = error / error_df
        sources.append(
            Source(
                name=label,
                sum_of_squares=squares,
                df=df,
                f=f,
                p=p,
                partial_eta_squared=squares / (squares + error) if squares + error > 0 else None,
                omega_squared=(squares - df * mean_error) / (total + mean_error),
            )
        )
    why = ""
    if missing:
        told = ", ".join(f"{a} x {b}" for a, b in missing)
        why = f"no run in {len(missing)} of {len(levels[0]) * len(levels[1])} cells ({told}): main effects of type 2 only"
    elif not crossed:
        why = "one run a cell: the interaction cannot be told from error"
    return blank.model_copy(
        update={
            "sources": tuple(sources),
            "residual_sum_of_squares": error,
            "residual_df": error_df,
            "interaction": crossed,
            "why": why,
        }
    )


def _fitted(runs: Sequence[Run], crossed: bool, kind: SumsOfSquares) -> list[tuple[str, float, int, float, float]] | str:
    """Rows (name, SS, df, F, p) of the factors, their interaction if `crossed`, and the error; or why there are none."""
    if not _connected(runs):
        return "the cells that have runs fall into groups that share no level: their effects cannot be told apart"
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data = pd.DataFrame([run.model_dump() for run in runs])
    fit = ols(f"value ~ C(a, Sum) {'*' if crossed else '+'} C(b, Sum)", data=data).fit()
    if fit.df_resid < 1:
        return "no run is left over to estimate error from: repeat some"
    if fit.ssr <= 1e-20 * float((data["value"] ** 2).sum()):
        return "runs of a cell are all equal: there is no error to compare with"
    found = anova_lm(fit, typ=kind)
    rows = [row for row in found.itertuples(name=None) if row[0] != "Intercept"]
    return [(str(row[0]), float(row[1]), int(row[2]), float(row[3]), float(row[4])) for row in rows]


def _connected(runs: Sequence[Run]) -> bool:
    """Whether every level can be reached from every other over cells that have runs, as additive effects need."""
    cells = {(run.a, run.b) for run in runs}
    a, b = {runs[0].a}, {runs[0].b}
    for _ in cells:
        a |= {one for one, other in cells if other in b}
        b |= {other for one, other in cells if one in a}
    return all(one in a for one, _ in cells)


def _around_mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)
