"""Train the pocket model from scratch: `make pocket`, or `python -m eval.pocket.pretrain`.

Every token is an output of the training loss (names are learnt by copying, also in what the
agent reads), the agent's own words weigh more. Matrices are trained by Muon, the rest by AdamW.
The run is a function of its settings and seed, writes a checkpoint every few minutes, and resumes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from agent.pocket.network import Network, NetworkConfig
from agent.pocket.tokenizer import PocketTokenizer, train
from consolidation.synthesis.merged_fix import EditStyle
from eval.pocket.episodes import Episode, EpisodeMaker, Mix
from eval.pocket.names import Split

SHARD = 2_000
BUCKETS = (160, 224, 288, 352, 416, 512)
TOKENIZER_EPISODES = 5_000
WARM_UP = 0.01
SKIPPED, READ, OWN = 0, 1, 2


@dataclass(frozen=True)
class Settings:
    """One pretraining run.

    `other_weight` is the loss weight of tokens that the agent reads. The learning rates suit
    batches of some 8,000 tokens; three times higher ones stop learning after five million
    tokens (docs/pocket-log.md).
    """

    seed: int = 0
    tokens: int = 24_000_000
    batch_tokens: int = 8_192
    muon_lr: float = 0.007
    adam_lr: float = 1e-3
    other_weight: float = 0.5
    vocabulary: int = 1280
    style: EditStyle = "lines"
    invented_names: float = 0.35
    hidden: int = 256
    layers: int = 5
    intermediate: int = 704

    def mix(self) -> Mix:
        """The episode mix."""
        return Mix(style=self.style, invented_names=self.invented_names)


Shard = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A temporary directory, in memory where the system has such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


def make_shard(
    settings: Settings, tokenizer_path: Path, number: int, split: Split = Split.PRETRAIN, count: int = SHARD
) -> Shard:
    """Episodes of one shard: concatenated ids (int16), what each token is (`SKIPPED`, `READ`, `OWN`), and lengths."""
    with scratch_directory() as scratch:
        maker = EpisodeMaker(settings.seed, scratch / "repo", settings.mix(), split)
        tokenizer = PocketTokenizer(tokenizer_path)
        encoded = [encode(tokenizer, maker.episode(number * count + i)) for i in range(count)]
    return (
        np.concatenate([e[0] for e in encoded]),
        np.concatenate([e[1] for e in encoded]),
        np.array([len(e[0]) for e in encoded]),
    )


def encode(tokenizer: PocketTokenizer, episode: Episode) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids of an episode, and what each token is; mistakes are context and never a target."""
    ids: list[int] = []
    parts: list[int] = []
    for number, message in enumerate(episode.messages):
        tokens = tokenizer.message(message)
        said = SKIPPED if number in episode.mistakes else OWN if message.role == "assistant" else READ
        ids += tokens
        parts += [READ] + [said] * (len(tokens) - 1)
    return np.array(ids, dtype=np.int16), np.array(parts, dtype=np.uint8)


class Shards:
    """Shards in order, made ahead of time by worker processes."""

    def __init__(self, settings: Settings, tokenizer_path: Path, first: int, workers: int) -> None:
        self._make = (settings, tokenizer_path)
        self._pool = ProcessPoolExecutor(workers)
        self._next = first
        self._ahead: list[Future[Shard]] = []
        for _ in range(workers + 1):
            self._submit()

    def _submit(self) -> None:
        self._ahead.append(self._pool.submit(make_shard, *self._make, self._next))
        self._next += 1

    def take(self) -> Shard:
        """The next shard."""
        self._submit()
        return self._ahead.pop(0).result()

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(cancel_futures=True)


def batches(shard: Shard, tokens: int, pad: int, rng: random.Random) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Length-bucketed batches: ids (B, T), masks of own and of read targets, number of real tokens."""
    ids, parts, lengths = shard
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        bucket = next((b for b in BUCKETS if length <= b), None)
        if bucket is not None:
            groups.setdefault(bucket, []).append(index)
    jobs: list[tuple[int, list[int]]] = []
    for bucket, members in groups.items():
        rows = tokens // bucket
        rng.shuffle(members)
        jobs += [(bucket, members[i : i + rows]) for i in range(0, len(members) - rows + 1, rows)]
    rng.shuffle(jobs)
    for bucket, members in jobs:
        x = torch.full((len(members), bucket), pad)
        part = torch.zeros(x.shape, dtype=torch.uint8)
        for row, index in enumerate(members):
            a, n = int(starts[index]), int(lengths[index])
            x[row, :n] = torch.from_numpy(ids[a : a + n].astype(np.int64))
            part[row, :n] = torch.from_numpy(parts[a : a + n])
        yield x, part == OWN, part == READ, int(sum(lengths[i] for i in members))


def initialise(network: Network) -> None:
    """Small normal weights, output projections scaled down by depth, zero biases."""
    depth = network.config.num_hidden_layers
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            scale = 1.0 if "embed" in name else 0.4
            width = parameter.shape[1]
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale /= math.sqrt(2 * depth)
            nn.init.normal_(parameter, std=0.02 if "embed" in name else scale / math.sqrt(width))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def loss_terms(network: Network, x: Tensor, own: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over the agent's own words, and over everything else it reads."""
    logits = network.logits(network.hidden(x)[:, :-1]).float()
    losses = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(x.shape[0], -1)
    mine, rest = own[:, 1:], read[:, 1:]
    return (losses * mine).sum() / mine.sum().clamp(min=1), (losses * rest).sum() / rest.sum().clamp(min=1)


def rate(progress: float) -> float:
    """Learning-rate factor at a share of the run: linear warm-up, then linear decay to one percent."""
    return min(progress / WARM_UP + 0.02, max(0.01, (1.0 - progress) / (1.0 - WARM_UP)))


@dataclass
class State:
    """Everything a run needs to go on."""

    tokens: int = 0
    step: int = 0
    shard: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Pretraining:
    """One resumable run in a folder."""

    def __init__(self, settings: Settings, folder: Path, device: str = "cpu", compiled: bool = True, workers: int = 1) -> None:
        self.settings, self.folder, self.device, self.workers = settings, folder, device, workers
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer_path = folder / "tokenizer.json"
        if not self.tokenizer_path.exists():
            self._train_tokenizer()
        self.tokenizer = PocketTokenizer(self.tokenizer_path)
        torch.manual_seed(settings.seed)
        self.config = NetworkConfig(
            len(self.tokenizer),
            settings.hidden,
            settings.layers,
            settings.hidden // 64,
            settings.hidden // 128,
            settings.intermediate,
        )
        self.network = Network(self.config).to(device)
        initialise(self.network)
        matrices = [p for n, p in self.network.named_parameters() if p.dim() == 2 and "embed" not in n]
        rest = [p for n, p in self.network.named_parameters() if not (p.dim() == 2 and "embed" not in n)]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=settings.muon_lr, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=settings.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.loss = torch.compile(loss_terms, dynamic=False) if compiled else loss_terms
        self.state = State()
        self.validation = make_shard(settings, self.tokenizer_path, 0, Split.HELD_OUT, 256)
        self._resume()

    def _train_tokenizer(self) -> None:
        with scratch_directory() as scratch:
            maker = EpisodeMaker(self.settings.seed, scratch / "repo", self.settings.mix())
            texts = (m.content for i in range(TOKENIZER_EPISODES) for m in maker.episode(i).messages)
            train(texts, self.settings.vocabulary).save(str(self.tokenizer_path))

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        saved = torch.load(path, weights_only=True)
        if saved["settings"] | {"tokens": self.settings.tokens} != asdict(self.settings):
            raise SystemExit(f"{path} belongs to other settings; remove the folder or choose another")
        self.network.load_state_dict(saved["network"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.state = State(**saved["state"])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        path = self.folder / "state.pt"
        temporary = path.with_suffix(".tmp")
        saved = {
            "settings": asdict(self.settings),
            "network": self.network.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "state": asdict(self.state),
        }
        torch.save(saved, temporary)
        temporary.replace(path)
        (self.folder / "history.json").write_text(
            json.dumps({"settings": asdict(self.settings), **asdict(self.state)}), encoding="utf-8"
        )

    def export(self, folder: Path) -> None:
        """Write the model as it ships: bf16 safetensors, config, tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in self.network.named_parameters()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.config.save(folder / "config.json")
        if folder != self.folder:
            shutil.copyfile(self.tokenizer_path, folder / "tokenizer.json")

    def run(self, checkpoint_seconds: float = 240.0, stop_after: float = math.inf) -> bool:
        """Train until the token budget is spent (True) or `stop_after` seconds have passed."""
        s, state = self.settings, self.state
        shards = Shards(s, self.tokenizer_path, state.shard, self.workers)
        began, saved = time.monotonic(), time.monotonic()
        columns = (
            TextColumn("pretraining"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as bar:
            task = bar.add_task("", total=s.tokens, completed=state.tokens, note="compiling")
            try:
                while state.tokens < s.tokens:
                    for batch in batches(
                        shards.take(), s.batch_tokens, self.tokenizer.pad, random.Random(f"{s.seed}/{state.shard}")
                    ):
                        before = time.monotonic()
                        own, rest = self._step(batch)
                        state.seconds += time.monotonic() - before
                        if state.step % 50 == 0:
                            self._note(own, rest)
                        bar.update(task, completed=state.tokens, note=f"loss {own:.3f}")
                        if state.tokens >= s.tokens:
                            break
                    state.shard += 1
                    if time.monotonic() - saved > checkpoint_seconds:
                        self.save()
                        saved = time.monotonic()
                    if time.monotonic() - began > stop_after:
                        break
            finally:
                shards.close()
        self.save()
        return state.tokens >= s.tokens

    def _step(self, batch: tuple[Tensor, Tensor, Tensor, int]) -> tuple[float, float]:
        x, mine, read = (part.to(self.device) for part in batch[:3])
        factor = rate(self.state.tokens / self.settings.tokens)
        for optimizer, base in zip(self.optimizers, (self.settings.muon_lr, self.settings.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * factor
        with torch.autocast(self.device, torch.bfloat16):
            own, rest = self.loss(self.network, x, mine, read)
        (own + self.settings.other_weight * rest).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.network.zero_grad(set_to_none=True)
        self.state.tokens += batch[3]
        self.state.step += 1
        return own.item(), rest.item()

    def _note(self, own: float, rest: float) -> None:
        row = {
            "tokens": self.state.tokens,
            "step": self.state.step,
            "seconds": round(self.state.seconds),
            "own": own,
            "rest": rest,
        }
        if self.state.step % 200 == 0:
            row |= self.validate()
        self.state.history.append(row)
        print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On held-out names: own-word loss, and the share of edit turns predicted without a slip."""
        edit = self.tokenizer.encode("edit")[0]
        assistant = self.tokenizer.prompt([])[0]
        right = edits = 0
        total = count = 0.0
        for x, mine, _, _ in batches(self.validation, 16_384, self.tokenizer.pad, random.Random(0)):
            x, mine = x.to(self.device), mine.to(self.device)
            with torch.autocast(self.device, torch.bfloat16):
                logits = self.network.logits(self.network.hidden(x)[:, :-1]).float()
            target, mask = x[:, 1:], mine[:, 1:]
            total += float(F.cross_entropy(logits[mask], target[mask], reduction="sum"))
            count += float(mask.sum())
            hit = (logits.argmax(-1) == target).cpu()
            for row in range(x.shape[0]):
                seen = x[row].tolist()
                for at in range(len(seen) - 1):
                    if seen[at] == assistant and seen[at + 1] == edit and bool(mask[row, at]):
                        end = seen.index(self.tokenizer.end, at)
                        edits += 1
                        right += bool(hit[row, at:end].all())
        return {"val_own": total / max(count, 1), "val_edit_exact": right / max(edits, 1)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/pocket"))
    parser.add_argument("--export", type=Path, default=None, help="where to write the finished model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds; the next call resumes")
    parser.add_argument("--no-compile", action="store_true")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    settings = Settings(**{name: options[name] for name in asdict(Settings())})
    torch.set_num_threads(options["threads"])
    run = Pretraining(settings, options["folder"], options["device"], not options["no_compile"], options["workers"])
    try:
        finished = run.run(stop_after=options["stop_after"])
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from the last checkpoint") from None
    if finished:
        run.export(options["export"] or options["folder"])


if __name__ == "__main__":
    main()
