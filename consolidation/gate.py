"""The gate: what decides whether a candidate may be put to work.

Base and candidate are examined on the same items, one greedy attempt each. Guards of one claim are judged together: its
items are asked in blocks, and after each block the claim is accepted, rejected, undecided (the items cannot support it; the
old adapter stays) or gone on with. See `consolidation.sequential` for the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import NormalDist, median

from pydantic import BaseModel, ConfigDict

from consolidation.answers import Answers
from consolidation.claims import Exam, Item, Side, Unheld, changed, interleaved
from consolidation.conduct import conduct
from consolidation.errors import AdapterError
from consolidation.gate_config import GateConfig as GateConfig
from consolidation.gate_config import Tolerance
from consolidation.guards import Answer, Guard, Role, Routes
from consolidation.paired import Paired as Paired
from consolidation.paired import pair_up as pair_up
from consolidation.sequential import Decision, Design, chance_z
from consolidation.skill import ALL
from memory.nights import Verdict

NO_EFFECT = "the candidate answers exactly like the base; it has no effect"


@dataclass(frozen=True)
class Look:
    """How a claim stands after a block: `tasks` of `of` items examined, the drop and its bound as shares of items."""

    claim: str
    tasks: int
    of: int
    drop: float
    bound: float
    decision: Decision


class Ruling(BaseModel):
    """A verdict, and the content hashes of exactly what was examined, by repository. `asked` counts items over all claims."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    artefacts: dict[str, str] = {}
    asked: int = 0


@dataclass(frozen=True)
class Gate:
    """Examines a candidate, no longer than it takes."""

    config: GateConfig

    def judge(
        self,
        guards: Sequence[Guard],
        candidate: Routes,
        answers: Answers,
        on_look: Callable[[Look], None] = lambda look: None,
        live: Routes | None = None,
        spent: AbstractSet[Item] = frozenset(),
    ) -> Ruling:
        """Promote only if every claim is accepted and the candidate is not the base in disguise.

        Capability and format are compared with the bare base, retention and behaviour with what is `live`. `spent` are items
        that judge nothing, because the candidate was chosen on them. The first claim that is not accepted ends it.

        Raises:
            ModelUnavailable: the model's server is away; ask again later, and it goes on where it stood.
            ConsolidationError: the answers cannot be kept.
        """
        numbers: dict[str, float] = {}
        exams: list[Exam] = []
        hashes: dict[str, str] = {}
        try:
            base, side, before = Side.of({}), Side.of(candidate), Side.of(live or {})
            hashes = side.hashes
            why = self._refused(_claims(guards), (base, side, before), answers, on_look, spent, numbers, exams)
            side.check()
        except (Unheld, AdapterError) as error:
            why = str(error)
        verdict = Verdict(promoted=not why, why=why or self._accepted(guards, numbers), numbers=numbers)
        return Ruling(verdict=verdict, artefacts=hashes, asked=sum(len(exam.said) for exam in exams))

    def _accepted(self, guards: Sequence[Guard], numbers: Mapping[str, float]) -> str:
        """What was shown, claim by claim, and what could not be."""
        roles = {guard.claim: guard.role for guard in guards}
        few = [claim for claim in roles if f"{claim}.too_few" in numbers]
        rules = {
            claim: self.config.tolerance(role) for claim, role in roles.items() if role != "behaviour" and claim not in few
        }
        shown = ", ".join(f"{claim} {rule.limit:.0%} ({rule.confidence:.0%})" for claim, rule in rules.items())
        rest = f"; too few tasks to judge {', '.join(few)}" if few else ""
        return f"no claim drops by its limit or more (confidence): {shown}{rest}"

    def _refused(
        self,
        claims: Mapping[str, Sequence[Guard]],
        sides: tuple[Side, Side, Side],
        answers: Answers,
        on_look: Callable[[Look], None],
        spent: AbstractSet[Item],
        numbers: dict[str, float],
        exams: list[Exam],
    ) -> str:
        """Why the candidate is refused; empty if it is not."""
        base, side, before = sides
        new = changed(side.routes, before.routes)
        if not any(guards[0].role == "capability" for guards in claims.values()):
            return "no guard of a capability was run" if claims else "no guard was run"
        if not new or side.key == base.key:
            return NO_EFFECT
        for claim, guards in claims.items():
            role = guards[0].role
            against = before if role in ("retention", "behaviour") else base
            order = interleaved(guards, new, self.config.seed, spent)
            exam = Exam(guards, against, side, answers, order)
            exams.append(exam)
            try:
                why = (
                    self._conduct(exam, numbers, claim)
                    if role == "behaviour"
                    else self._claim(exam, claim, role, on_look, numbers)
                )
            finally:
                numbers[f"{claim}.tasks"], numbers[f"{claim}.of"] = len(exam.said), len(order)
                numbers |= _by_category(exam, claim)
            if why:
                return f"{claim}: {why}"
        against_base = [exam for exam in exams if exam.base.key == base.key]
        for exam in against_base:  # what was accepted early has yet to show an effect
            while len(exam.said) < len(exam.order) and not any(each.differs for each in against_base):
                exam.ask_up_to(len(exam.said) + -(-len(exam.order) // self.config.looks))
        return "" if any(exam.differs for exam in against_base) else NO_EFFECT

    def _claim(self, exam: Exam, claim: str, role: Role, on_look: Callable[[Look], None], numbers: dict[str, float]) -> str:
        rule = self.config.tolerance(role)
        if len(exam.order) < rule.min_tasks and role == "retention":
            numbers[f"{claim}.too_few"] = 1
            return ""
        if len(exam.order) < rule.min_tasks:
            return f"only {len(exam.order)} items, at least {rule.min_tasks} are needed"
        design = Design(len(exam.order), rule, self.config.looks, self.config.futility)
        decision = Decision.GO_ON
        for look, size in enumerate(design.sizes):
            exam.ask_up_to(size)
            lost, gained = exam.lost, exam.gained
            decision = Decision(int(design.decide(look, lost, gained)))
            drop, bound = (lost - gained) / size, design.bound(look, lost, gained)
            on_look(Look(claim, size, len(exam.order), drop, bound, decision))
            if decision != Decision.GO_ON:
                break
        numbers |= {
            f"{claim}.base": sum(base.score for base, _ in exam.said),
            f"{claim}.candidate": sum(answer.score for _, answer in exam.said),
            f"{claim}.lost": lost,
            f"{claim}.gained": gained,
            f"{claim}.drop": round(drop, 4),
            f"{claim}.drop_bound": round(bound, 4),
            f"{claim}.decision": int(decision),
        }
        return _why(decision, lost, gained, size, bound, rule) or _worse_adapter(exam, rule)

    def _conduct(self, exam: Exam, numbers: dict[str, float], claim: str) -> str:
        if len(exam.order) < self.config.behaviour.min_tasks:
            numbers[f"{claim}.too_few"] = 1  # it cannot be told whether it works otherwise: what it can do is judged elsewhere
            return ""
        exam.ask_up_to(len(exam.order))
        before, now = ([answer.facts for answer in side] for side in zip(*exam.said, strict=True)) if exam.said else ([], [])
        reasons, found = conduct(before, now, self.config.behaviour)
        numbers |= {f"{claim}.{name}": value for name, value in found.items()}
        return "; ".join(reasons)


def judge(guards: Mapping[str, Paired], config: GateConfig, differs: bool) -> Verdict:
    """Judge results that are all there: each guard is a claim of its own with one look.

    `differs` says whether any examined answer of the candidate differed from the base's.
    """
    reasons: list[str] = []
    numbers: dict[str, float] = {}
    if not guards:
        reasons.append("no guard was run")
    if not differs:
        reasons.append(NO_EFFECT)
    for name, paired in guards.items():
        design = Design(paired.n, config, 1, 0.0)
        decision, bound = Decision(int(design.decide(0, paired.lost, paired.gained))), paired.drop_bound(config.confidence)
        if paired.n < config.min_tasks:
            reasons.append(f"{name}: only {paired.n} tasks examined, at least {config.min_tasks} are needed")
        elif decision != Decision.ACCEPTED:
            reasons.append(f"{name}: {_why(decision, paired.lost, paired.gained, paired.n, bound, config)}")
        numbers |= {
            f"{name}.tasks": paired.n,
            f"{name}.base": paired.base,
            f"{name}.candidate": paired.candidate,
            f"{name}.drop": round(paired.drop, 4),
            f"{name}.drop_bound": round(bound, 4),
            f"{name}.decision": int(decision),
        }
    why = "; ".join(reasons) or f"no guard drops by {config.limit:.0%} or more (confidence {config.confidence:.0%})"
    return Verdict(promoted=not reasons, why=why, numbers=numbers)


def _worse_adapter(exam: Exam, rule: Tolerance) -> str:
    """The adapter whose own items dropped by more than chance explains, though together with others' gains it passed.

    The critical value is that of `chance`, divided among the adapters (Bonferroni).
    """
    named = {guard.name: guard for guard in exam.guards}
    tallies: dict[str, list[float]] = {}
    for (guard, item), (base, candidate) in zip(exam.order, exam.said, strict=False):
        repo = named[guard].repo(item)
        tally = tallies.setdefault(repo if repo in exam.candidate.routes else ALL, [0.0, 0.0, 0.0])
        tally[0] += max(0.0, base.score - candidate.score)
        tally[1] += max(0.0, candidate.score - base.score)
        tally[2] += 1
    if len(tallies) < 2:
        return ""
    critical = -NormalDist().inv_cdf(NormalDist().cdf(-rule.chance) / len(tallies))
    for repo, (lost, gained, n) in tallies.items():
        if float(chance_z(lost, gained)) >= critical:
            return f"rejected; the adapter of {repo} lost {lost:g} and gained {gained:g} of {n:g}, more than chance explains"
    return ""


def _by_category(exam: Exam, claim: str) -> dict[str, float]:
    """Scores of both sides in each of a claim's categories, where there are several; time-outs, and the median seconds."""
    named = {guard.name: guard for guard in exam.guards}
    groups: dict[str, list[tuple[Answer, Answer]]] = {}
    for (guard, item), said in zip(exam.order, exam.said, strict=False):
        groups.setdefault(named[guard].category(item), []).append(said)
    found: dict[str, float] = {}
    for category, both in sorted(groups.items()) if len(groups) > 1 else ():
        place = f"{claim}/{category}"
        found[f"{place}.tasks"] = len(both)
        found[f"{place}.base"] = sum(base.score for base, _ in both)
        found[f"{place}.candidate"] = sum(candidate.score for _, candidate in both)
    if exam.said:
        for fact in ("timeout", "late"):
            counts = [sum(each[side].facts.get(fact, 0.0) for each in exam.said) for side in (0, 1)]
            if any(counts):
                found |= {f"{claim}.{fact}_base": counts[0], f"{claim}.{fact}_candidate": counts[1]}
        found[f"{claim}.p50_seconds"] = round(median(candidate.seconds for _, candidate in exam.said), 3)
    return found


def _why(decision: Decision, lost: float, gained: float, n: int, bound: float, rule: Tolerance) -> str:
    """What speaks against accepting; empty if nothing does."""
    measured = f"{lost:g} lost, {gained:g} gained of {n}: measured drop {(lost - gained) / n:+.1%}"
    if decision == Decision.REJECTED:
        return f"rejected; {measured} (margin {rule.margin:.0%}, or more than chance explains)"
    if decision == Decision.UNDECIDED:
        return f"undecided, so what is live stays; {measured}, but it may be as large as {bound:.1%} (limit {rule.limit:.0%})"
    return ""


def _claims(guards: Sequence[Guard]) -> dict[str, list[Guard]]:
    """Guards by claim, in order. Raises Unheld where a name or a claim's role is not clear."""
    claims: dict[str, list[Guard]] = {}
    for guard in guards:
        claims.setdefault(guard.claim, []).append(guard)
    for claim, members in claims.items():
        if len({guard.role for guard in members}) > 1:
            raise Unheld(f"the guards of {claim} have different roles")
    if len({guard.name for guard in guards}) < len(guards):
        raise Unheld("two guards have the same name")
    return claims
