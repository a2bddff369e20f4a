"""Training in a child process: memory comes back, and a crash does not take the daemon along.

Parent side: `ChildTrainer`. Child side: `python -m consolidation.trainers.child FOLDER MEMORY NICENESS ENGINE DUTY …`,
which reads the job from the folder and prints one JSON event per line.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from consolidation.errors import TrainingCrashed, TrainingRefused
from consolidation.trainers.base import Example, Item, Job, Progress, Trained, read_job, write_job
from consolidation.trainers.checks import check_examples, check_rows

ADAPTER = "adapter"
ERRORS = "stderr.log"
ENGINES = ("torch", "mlx")
WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class ChildTrainer:
    """Runs training in its own process, which ends with its parent however that ends.

    `memory_mb` limits its private memory (MiB; 0 for no limit), `niceness` is added to its priority, `name` is the engine:
    `torch` or `mlx`. A `fit` that was killed goes on where it stood when the same job comes to the same folder.
    """

    memory_mb: int = 0
    niceness: int = 0
    name: str = "torch"

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"no trainer {self.name!r}; choose one of {', '.join(ENGINES)}")

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """See the `Trainer` seam; `out` is the job's folder and gets the subfolder `adapter`."""
        check_examples(job, examples)
        found = self._run(job, examples, out, ["fit"], lambda data: on_step(Progress.model_validate(data)))
        return Trained.model_validate(found)

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        """See the `Trainer` seam."""
        check_rows(job, examples)
        with tempfile.TemporaryDirectory(prefix="loss-") as name:
            found = self._run(job, examples, Path(name), ["loss", *([str(adapter.resolve())] if adapter else [])])
        return [float(value) for value in found]

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        """See the `Trainer` seam."""
        check_rows(job, examples)
        with tempfile.TemporaryDirectory(prefix="fisher-") as name:
            more = [str(adapter.resolve())] if adapter else []
            self._run(job, examples, Path(name), ["fisher", str(out.resolve()), *more])
        return out

    def _run(
        self,
        job: Job,
        examples: Sequence[Item],
        folder: Path,
        duty: Sequence[str],
        on_step: Callable[[Any], None] = lambda data: None,
    ) -> Any:
        write_job(folder, job, examples)
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
        argv = [sys.executable, "-m", "consolidation.trainers.child", str(folder), str(self.memory_mb), str(self.niceness)]
        with (
            (folder / ERRORS).open("w", encoding="utf-8") as errors,
            subprocess.Popen(
                [*argv, self.name, *duty],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            ) as child,
        ):
            try:
                return _follow(child, folder, on_step)
            finally:
                child.kill()


def _follow(child: subprocess.Popen[str], folder: Path, on_step: Callable[[Any], None]) -> Any:
    assert child.stdout is not None
    for line in child.stdout:
        if not line.endswith("\n"):
            break  # it was killed in the middle of a word
        event = json.loads(line)
        if event["event"] == "step":
            on_step(event["data"])
        elif event["event"] == "done":
            return event["data"]
        elif event["event"] == "refused":
            raise TrainingRefused(event["data"])
    code = child.wait()
    tail = (folder / ERRORS).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    why = tail[0] if tail else "it said nothing"
    raise TrainingCrashed(f"the training process ended with status {code}: {why} (all of it: {folder / ERRORS})")


def _end_with_parent() -> None:
    # The parent writes nothing: what ends the reading is its death, by whatever means. Not sys.stdin, whose lock
    # this thread would hold when the interpreter ends: a fatal error then hides the one that ended it.
    while os.read(0, 1):
        pass
    os._exit(3)


def _limit(memory_mb: int, niceness: int) -> None:
    os.nice(niceness)
    if not memory_mb:
        return
    if sys.platform == "linux":
        # RLIMIT_DATA counts private writable memory; RLIMIT_AS would count what torch only reserves.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    else:
        threading.Thread(target=_watch_memory, args=(memory_mb,), daemon=True).start()


def _watch_memory(memory_mb: int) -> None:
    """End this process when it has ever been larger; for systems that enforce no limit themselves."""
    unit = 1 << 10 if sys.platform == "linux" else 1
    held = 0
    while held <= memory_mb << 20:
        time.sleep(WATCH_SECONDS)
        mlx = sys.modules.get("mlx.core")
        held = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, mlx.get_peak_memory() if mlx else 0)
    print(f"over the limit of {memory_mb} MiB", file=sys.stderr, flush=True)
    os._exit(4)


@contextlib.contextmanager
def _channel() -> Iterator[IO[str]]:
    """Where events go: the output as it was. What libraries print goes to the errors meanwhile."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as channel:
        os.dup2(2, 1)
        try:
            yield channel
        finally:
            sys.stdout.flush()
            os.dup2(channel.fileno(), 1)


def _do(engine: str, folder: Path, duty: Sequence[str], on_step: Callable[[Progress], None]) -> Any:
    if engine == "torch":
        from consolidation.trainers.torch_lora import TORCH as TRAINER
    else:
        try:
            from consolidation.trainers.mlx_lora import MLX as TRAINER
        except ImportError as error:
            raise TrainingRefused(
                f"MLX is not installed ({error}); install the extra: pip install 'sleepy-agent[mlx]'"
            ) from error
    job, items = read_job(folder)
    if duty[0] == "fit":
        return TRAINER.fit(job, items, folder / ADAPTER, on_step).model_dump(mode="json")
    examples = [item for item in items if isinstance(item, Example)]
    if duty[0] == "loss":
        return TRAINER.loss(job, examples, Path(duty[1]) if duty[1:] else None)
    return str(TRAINER.fisher(job, examples, Path(duty[1]), Path(duty[2]) if duty[2:] else None))


def main(argv: Sequence[str]) -> int:
    """The child's side; without engine and duty it fits with torch."""
    folder, memory_mb, niceness = Path(argv[1]), int(argv[2]), int(argv[3])
    engine, *duty = argv[4:] or ["torch"]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(memory_mb, niceness)
    with _channel() as channel:

        def emit(event: str, data: object) -> None:
            print(json.dumps({"event": event, "data": data}), file=channel)

        try:
            found = _do(engine, folder, duty or ["fit"], lambda progress: emit("step", progress.model_dump()))
        except TrainingRefused as refused:
            emit("refused", str(refused))
            return 1
        emit("done", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
