"""`sleepyctl bench strategies`: every training strategy lives the same nights in the pocket world, and is measured after each.

A life is a sequence of nights. Each night teaches one more repository's house convention to one adapter that serves all
repositories, so that forgetting can happen. What the nights teach was lived once, by the bare base, and is the same
for every strategy. No gate stands between them: what a strategy does by itself is what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from agent.model import Model
from agent.sandbox.base import Sandbox
from consolidation.adapters import AdapterStore
from consolidation.encoding import item_of
from consolidation.errors import TrainingRefused
from consolidation.learning import Learning
from consolidation.lessons import lessons_of
from consolidation.pairs import Encoder, Format, Pair
from consolidation.skill import ALL
from consolidation.strategies.choice import AnyStrategy
from consolidation.strategies.seam import Cost, Sample
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.synthesis.seam import Lived
from consolidation.trainers.base import Job, LoraConfig, Trainer
from eval.experience import lived_of_day
from eval.play import Player, Routes
from eval.pocket.names import Split
from eval.pocket.rehearsal import rehearsal_pairs
from eval.pocket.stream import REPOSITORIES, PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.files import write_whole
from memory.hashing import content_hash
from memory.knowledge.embedders import HashingEmbedder

LORA = LoraConfig(serving_scale=1.0, epochs=4, batching="packed", precision="bf16")
BUDGET = 5
LIVED: TypeAdapter[list[Lived]] = TypeAdapter(list[Lived])
Say = Callable[[str], None]


class Variant(BaseModel):
    """A strategy as it is measured: with which recipe, told in which format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strategy: AnyStrategy = Field(discriminator="kind")
    lora: LoraConfig = LORA
    format: Format = "T"
    rehearsal: int = 0
    """Old episodes of the base's own skills per night."""


class Setup(BaseModel):
    """How large the measurement is: nights, tasks lived per night, tasks examined per repository and of the base's skills."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nights: int = Field(default=4, ge=1, le=len(REPOSITORIES))
    day: int = 20
    conventions: int = 8
    base_skills: int = 32
    context: int = 1280
    threads: int = 1

    def repos(self, seed: int) -> tuple[str, ...]:
        """The repositories in the order in which the nights teach them."""
        at = seed * self.nights % len(REPOSITORIES)
        return (REPOSITORIES[at:] + REPOSITORIES[:at])[: self.nights]


class NightMeasured(BaseModel):
    """After a night: convention tasks resolved by repository (in the order of the nights, those to come included), and
    held-out base skills. `cost` is of this night, `examples` what was trained on; `refused` says why nothing was."""

    conventions: list[int]
    base_skills: int
    cost: Cost = Cost()
    examples: int = 0
    rank: int = 0
    notes: dict[str, float] = {}
    refused: str = ""


class Life(BaseModel):
    """One strategy, one seed. `before` is measured before the first night; counts are of `convention_tasks` per repository
    and of `skill_tasks`."""

    variant: str
    seed: int
    repos: list[str]
    convention_tasks: int
    skill_tasks: int
    before: NightMeasured
    nights: list[NightMeasured]
    config_hash: str


@dataclass(frozen=True)
class Laboratory:
    """What all lives share: a model, a sandbox, a trainer, and a folder in which finished lives are kept."""

    model: Model
    base: Path
    base_hash: str
    encode: Encoder
    sandbox: Sandbox
    trainer: Trainer
    home: Path
    say: Say = lambda line: None

    def life(self, variant: Variant, setup: Setup, seed: int) -> Life:
        """Live it, or read it where it was lived already with the same configuration and model."""
        digest = content_hash([variant, setup, seed, self.base_hash, self.model.fingerprint])
        kept = self.home / "lives" / f"{variant.name}-{seed}-{digest}.json"
        if not kept.is_file():
            life = self._lived(variant, setup, seed, digest)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, life.model_dump_json(indent=1))
        return Life.model_validate_json(kept.read_bytes())

    def _lived(self, variant: Variant, setup: Setup, seed: int, digest: str) -> Life:
        work = self.home / "work" / digest
        adapters = AdapterStore(work / "adapters")
        job = Job(base=self.base, base_hash=self.base_hash, lora=variant.lora, threads=setup.threads, context=setup.context)
        learning = Learning(variant.strategy, job, digest, self.trainer, adapters, HashingEmbedder().embed)
        repos = setup.repos(seed)
        live: dict[str, str] = {}
        trainings: list[dict[str, Any]] = []
        samples: list[Sample] = []
        nights: list[NightMeasured] = []
        before = self._measured(setup, seed, {})
        for number, repo in enumerate(repos):
            told = [Sample(pair, item_of(pair, self.encode)) for pair in self._pairs(variant, setup, seed, repo)]
            samples = [sample for sample in samples if sample.pair.source != "rehearsal"] + told
            lesson = lessons_of(samples, live, adapters, self.base_hash, trainings, together=True)[ALL]
            try:
                done = learning.learn(lesson, seed, work / f"night-{number}", lambda progress: None)
            except TrainingRefused as refused:
                last = nights[-1] if nights else before
                nights.append(NightMeasured(conventions=last.conventions, base_skills=last.base_skills, refused=str(refused)))
                continue
            trainings.append(done)
            live = {ALL: done["adapter"]}
            found = self._measured(setup, seed, {ALL: adapters.get(done["adapter"]).folder})
            nights.append(
                found.model_copy(update={k: done[k] for k in ("examples", "rank", "notes")} | {"cost": Cost(**done["cost"])})
            )
            self.say(f"{variant.name}, seed {seed}, night {number + 1}: {found.conventions} {found.base_skills}")
        return Life(
            variant=variant.name,
            seed=seed,
            repos=list(repos),
            convention_tasks=setup.conventions,
            skill_tasks=setup.base_skills,
            before=before,
            nights=nights,
            config_hash=digest,
        )

    def _pairs(self, variant: Variant, setup: Setup, seed: int, repo: str) -> list[Pair]:
        """A night's pairs: what the bare base lived that day (kept for all lives), told in the variant's format."""
        path = self.home / "days" / f"{repo}-{seed}-{setup.day}-{self.model.fingerprint}.json"
        if not path.is_file():
            day = PocketStream(seed, (repo,), setup.day)
            played = list(Player(self.model, self.sandbox).play(day, day.tasks()))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, LIVED.dump_json(lived_of_day(day, played, self.sandbox, merged_fixes=True)).decode())
        teller = OfflineSynthesiser()
        pairs = [p for lived in LIVED.validate_json(path.read_bytes()) for p in teller.pairs(lived, variant.format, BUDGET)]
        return pairs + rehearsal_pairs(repo, variant.rehearsal, seed)

    def _measured(self, setup: Setup, seed: int, routes: Routes) -> NightMeasured:
        """Play the examinations: new convention tasks of every repository, and held-out base skills all over."""
        repos = setup.repos(seed)
        rules = PocketStream(seed, repos, 2 * setup.conventions, split=Split.HELD_OUT)
        about = [task for task in rules.tasks() if rules.secret(task).kind == CONVENTION_KIND]
        per_repo = -(-setup.base_skills // len(REPOSITORIES))
        skills = PocketStream(seed, REPOSITORIES, 2 * per_repo, split=Split.HELD_OUT)
        basic = [task for task in skills.tasks() if skills.secret(task).kind != CONVENTION_KIND][: setup.base_skills]
        player = Player(self.model, self.sandbox)
        found = dict.fromkeys(repos, 0)
        for trajectory in player.play(rules, about, routes):
            found[trajectory.repo] += trajectory.resolved
        return NightMeasured(
            conventions=list(found.values()),
            base_skills=sum(trajectory.resolved for trajectory in player.play(skills, basic, routes)),
        )
