"""The training loop, one for every engine: what differs between torch and MLX is behind `Engine`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors.torch import save_file

from agent.adapters import Lora, read_peft
from agent.errors import ModelError
from consolidation.errors import AdapterError, TrainingRefused
from consolidation.layouts.peft import write_peft
from consolidation.trainers.base import Checkpoint, Example, Item, Job, Preference, Progress, Trained
from consolidation.trainers.batches import plan, rate_factor, split, steps_of
from consolidation.trainers.checkpoint import Position, job_hash, load_state, save_state, state_file
from consolidation.trainers.checks import check_examples, check_rows, check_step, check_vocabulary, check_whole
from consolidation.trainers.engine import Engine, OpenEngine
from consolidation.trainers.initial import first_factors
from consolidation.trainers.measure import losses_of, preferences_of
from consolidation.trainers.starts import read_penalty, read_start, tensors_of
from memory.files import sync


@dataclass(frozen=True)
class LocalTrainer:
    """A trainer in this process."""

    name: str
    open: OpenEngine

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """See the `Trainer` seam. A function of job and examples, also if it is killed and begun again with them."""
        check_examples(job, examples)
        lora = read_start(job, job.start) if job.start else first_factors(job)
        engine = self.open(job, lora)
        check_vocabulary(examples, engine.vocabulary)
        identity = job_hash(self.name, job, examples)
        try:
            return _Run(engine, job, list(examples), out, on_step, identity).whole()
        except TrainingRefused:
            state_file(out).unlink(missing_ok=True)  # going on from there would end in the same way
            raise

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        """See the `Trainer` seam."""
        check_rows(job, examples)
        try:
            lora = first_factors(job) if adapter is None else read_peft(adapter)
        except ModelError as error:
            raise TrainingRefused(f"its loss cannot be measured: {error}") from error
        engine = self.open(job, lora)
        check_vocabulary(examples, engine.vocabulary)
        return losses_of(engine, job, examples, base=adapter is None)

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        """See the `Trainer` seam."""
        check_rows(job, examples)
        engine = self.open(job, read_start(job, adapter) if adapter else first_factors(job))
        check_vocabulary(examples, engine.vocabulary)
        mean = {name: square / len(examples) for name, square in engine.squares(examples).items()}
        if not all(f.isfinite().all() for f in mean.values()) or not any(f.any() for f in mean.values()):
            raise TrainingRefused("the Fisher information is zero or not finite; check the adapter and the examples")
        temporary = out.with_name(f".{out.name}.part")
        try:
            save_file(mean, temporary)
            sync(temporary)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
        sync(out.parent)
        return out


@dataclass
class _Run:
    engine: Engine
    job: Job
    items: list[Item]
    out: Path
    on_step: Callable[[Progress], None]
    identity: str
    position: Position = field(init=False)
    saved: float = field(init=False)

    def __post_init__(self) -> None:
        lora = self.job.lora
        self.train, self.held = split(len(self.items), lora.validation, self.job.seed)
        self.steps = steps_of(len(self.train), lora)
        self.points = {round(i * self.steps / lora.checkpoints) for i in range(1, lora.checkpoints + 1)} - {0}
        self.state = state_file(self.out)
        self.kept = self.out.with_name(f"{self.out.name}-checkpoints")

    def whole(self) -> Trained:
        """Train to the end, from wherever it stands."""
        self._begin()
        job, position, resumed = self.job, self.position, self.position.step
        widths = [self.items[i].width for i in self.train]
        batches = plan(widths, job.lora, job.seed, job.machine.row_tokens, self.engine.pads)
        began = time.monotonic() - position.seconds
        for step, numbers in enumerate(batches):
            if step < position.step or position.stopped:
                continue
            batch = [[self.items[self.train[i]] for i in part] for part in numbers]
            loss, norm = self.engine.learn(batch)
            check_step(loss, norm, step)
            self.engine.update(job.lora.learning_rate * rate_factor(step, self.steps))
            position.step, position.seconds = step + 1, time.monotonic() - began
            position.tokens += sum(item.tokens for part in batch for item in part)
            position.losses.append(loss)
            self._mark()
            self._keep()
            self.on_step(Progress(step=position.step, steps=self.steps, loss=loss, resumed_from=resumed))
        return self._end(resumed)

    def _begin(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)  # an older adapter must not be taken for what comes of this training
        self.out.parent.mkdir(parents=True, exist_ok=True)
        found = load_state(self.state, self.identity)
        self.position = found[0] if found else Position(job=self.identity)
        if found is None:
            shutil.rmtree(self.kept, ignore_errors=True)
        self.saved = time.monotonic()
        pairs = [item for item in self.items if isinstance(item, Preference)]
        if pairs and not self.position.references:
            self.position.references = self._references(pairs)
        if pairs:
            self.items = [p.model_copy(update={"reference": r}) for p, r in zip(pairs, self.position.references, strict=True)]
        if found:
            self.engine.restore(found[1])
        if penalty := read_penalty(self.job, tensors_of(self.engine.factors())):
            self.engine.penalise(*penalty)

    def _references(self, pairs: Sequence[Preference]) -> list[tuple[float, float]]:
        given = [pair.reference for pair in pairs if pair.reference is not None]
        if len(given) == len(pairs):
            return given
        return preferences_of(self.engine, self.job, pairs, base=self.job.lora.reference == "base")

    def _mark(self) -> None:
        """Keep a checkpoint where one is due, and see whether it is time to stop."""
        position, lora = self.position, self.job.lora
        if position.step not in self.points:
            return
        losses = losses_of(self.engine, self.job, [self.items[i] for i in self.held])
        validation = sum(losses) / len(losses) if losses else None
        folder = self.out
        if lora.checkpoints > 1:
            folder = self.kept / str(position.step)
            shutil.rmtree(folder, ignore_errors=True)  # from a process that was killed before it noted this step
            self._write(self.engine.factors(), folder)
        position.checkpoints.append(Checkpoint(step=position.step, folder=folder, validation=validation))
        seen = [c.validation for c in position.checkpoints if c.validation is not None]
        position.stopped = bool(lora.patience) and len(seen) - 1 - seen.index(min(seen)) >= lora.patience

    def _keep(self) -> None:
        machine, last = self.job.machine, self.position.step == self.steps or self.position.stopped
        due = machine.state_steps and self.position.step % machine.state_steps == 0
        if due or (not last and time.monotonic() - self.saved >= machine.state_seconds):
            save_state(self.state, self.position, self.engine.state())
            self.saved = time.monotonic()

    def _end(self, resumed: int) -> Trained:
        position, lora = self.position, self.engine.factors()
        check_whole(position.losses, lora)
        losses, marks = position.losses, position.checkpoints
        stopped = position.stopped and position.step < self.steps
        if self.job.lora.patience:
            best = min(marks, key=lambda mark: mark.validation or 0.0)
            write_peft(read_peft(best.folder), self.out, str(self.job.base))
        else:
            self._write(lora, self.out)
        self.state.unlink(missing_ok=True)
        per_epoch = min(len(losses), max(1, self.steps // self.job.lora.epochs))
        return Trained(
            folder=self.out,
            examples=len(self.items),
            tokens=position.tokens,
            steps=position.step,
            seconds=position.seconds,
            loss_first=sum(losses[:per_epoch]) / per_epoch,
            loss_last=sum(losses[-per_epoch:]) / per_epoch,
            resumed_from=resumed,
            stopped_early=stopped,
            checkpoints=tuple(marks),
        )

    def _write(self, lora: Lora, folder: Path) -> None:
        served = replace(lora, alpha=lora.alpha * self.job.lora.serving_scale)
        try:
            write_peft(served, folder, str(self.job.base))
        except (ModelError, AdapterError) as error:
            raise TrainingRefused(f"{error} (try a lower learning rate)") from error
