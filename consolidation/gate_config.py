"""How strict the gate is; light to import, because the daemon reads its configuration with it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from consolidation.guards import Role


class Tolerance(BaseModel):
    """What counts as no worse, for one claim."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    margin: float = Field(default=0.02, gt=0, lt=1)
    """The measured drop (share of items) must be below this."""
    limit: float = Field(default=0.05, gt=0, lt=1)
    """The upper bound of the drop must be below this: a true drop as large is accepted with a chance of 1 - confidence."""
    confidence: float = Field(default=0.99, gt=0.5, lt=1)
    """One-sided confidence of that bound, all looks together."""
    chance: float = Field(default=1.5, gt=0)
    """The measured drop must be fewer standard errors than this, so that it can be chance."""
    min_tasks: int = Field(default=40, ge=1)
    """Fewer items than this support no claim."""


class ConductLimits(BaseModel):
    """What counts as working no worse."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided confidence of each bound."""
    tests_margin: float = Field(default=0.1, gt=0, lt=1)
    """The measured fall of the tests run per edit, at most one each (share of those run before), must be below this."""
    tests_limit: float = Field(default=0.3, gt=0, lt=1)
    """The upper bound of that fall must be below this."""
    share_margin: float = Field(default=0.03, gt=0, lt=1)
    """The measured rise of the share of tasks submitted untested, or with malformed calls, must be below this."""
    share_limit: float = Field(default=0.1, gt=0, lt=1)
    """The upper bound of that rise must be below this."""
    min_tasks: int = Field(default=40, ge=1)
    """Fewer tasks than this support no claim."""


class FormatTolerance(Tolerance):
    """What counts as speaking the tool format no worse."""

    margin: float = Field(default=0.03, gt=0, lt=1)
    """The measured drop (share of the score) must be below this."""
    limit: float = Field(default=0.1, gt=0, lt=1)
    """The upper bound of the drop must be below this."""
    min_tasks: int = Field(default=20, ge=1)
    """Fewer items than this support no claim."""


class RetentionTolerance(Tolerance):
    """What counts as forgetting nothing. There are few items of early nights, so that only a larger drop can be excluded."""

    margin: float = Field(default=0.05, gt=0, lt=1)
    """The measured drop (share of items) must be below this."""
    limit: float = Field(default=0.15, gt=0, lt=1)
    """The upper bound of the drop must be below this."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided confidence of that bound, all looks together."""
    min_tasks: int = Field(default=20, ge=1)
    """Fewer items than this support no claim."""


class GateConfig(Tolerance):
    """How strict the gate is. The fields of a tolerance are those of the role capability."""

    looks: int = Field(default=20, ge=1, le=100)
    """Blocks in which a claim's items are asked; after each one it may be decided."""
    futility: float = Field(default=0.2, ge=0, lt=0.5)
    """Stop where the chance of being accepted after all, if there is no drop, is below this."""
    seed: int = 0
    """Decides the order of the items, and which ones choose among candidates."""
    format: FormatTolerance = FormatTolerance()
    """For the role format: answers in the form of tool calls."""
    retention: RetentionTolerance = RetentionTolerance()
    """For the role retention: what earlier nights taught, compared with what is live."""
    behaviour: ConductLimits = ConductLimits()
    """For the role behaviour: how it works, compared with what is live."""
    choice_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of a guard's items on which the best of several candidates is chosen; they judge nothing."""
    choice_items: int = Field(default=100, ge=1)
    """At most so many items of a guard are spent on choosing."""

    def tolerance(self, role: Role) -> Tolerance:
        """What a role is judged by."""
        return {"format": self.format, "retention": self.retention}.get(role, self)
