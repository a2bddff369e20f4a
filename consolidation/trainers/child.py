"""Training in a child process: memory comes back, and a crash does not take the daemon along.

Parent side: `ChildTrainer`. Child side: `python -m consolidation.trainers.child FOLDER`, which
reads the job from the folder and prints one JSON event per line.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from consolidation.errors import TrainingCrashed, TrainingRefused
from consolidation.trainers.base import Example, Job, Progress, Trained, check_examples, read_job, write_job

ADAPTER = "adapter"
ERRORS = "stderr.log"


@dataclass(frozen=True)
class ChildTrainer:
    """Runs torch + PEFT training in its own process, which ends with its parent however that ends.

    `memory_mb` limits its private memory (MiB; 0 for no limit), `niceness` is added to its priority.
    """

    memory_mb: int = 0
    niceness: int = 0
    name: str = "torch"

    def fit(self, job: Job, examples: Sequence[Example], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """See the `Trainer` seam; `out` is the job's folder and gets the subfolder `adapter`."""
        check_examples(job, examples)
        write_job(out, job, examples)
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
        argv = [sys.executable, "-m", "consolidation.trainers.child", str(out), str(self.memory_mb), str(self.niceness)]
        with (
            (out / ERRORS).open("w", encoding="utf-8") as errors,
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            ) as child,
        ):
            try:
                return self._follow(child, out, on_step)
            finally:
                child.kill()

    def _follow(self, child: subprocess.Popen[str], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "step":
                on_step(Progress.model_validate(event["data"]))
            elif event["event"] == "done":
                return Trained.model_validate(event["data"])
            elif event["event"] == "refused":
                raise TrainingRefused(event["data"])
        code = child.wait()
        tail = (out / ERRORS).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        why = tail[0] if tail else "it said nothing"
        raise TrainingCrashed(f"the training process ended with status {code}: {why} (all of it: {out / ERRORS})")


def _emit(event: str, data: object) -> None:
    print(json.dumps({"event": event, "data": data}), flush=True)


def _end_with_parent() -> None:
    # The parent writes nothing: what ends the reading is its death, by whatever means.
    sys.stdin.buffer.read()
    os._exit(3)


def _limit(memory_mb: int, niceness: int) -> None:
    os.nice(niceness)
    if memory_mb and sys.platform == "linux":
        # RLIMIT_DATA counts private writable memory; RLIMIT_AS would count what torch only reserves.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(argv: Sequence[str]) -> int:
    """The child's side."""
    folder, memory_mb, niceness = Path(argv[1]), int(argv[2]), int(argv[3])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(memory_mb, niceness)
    from consolidation.trainers.torch_lora import fit

    job, examples = read_job(folder)
    try:
        trained = fit(job, examples, folder / ADAPTER, lambda progress: _emit("step", progress.model_dump()))
    except TrainingRefused as refused:
        _emit("refused", str(refused))
        return 1
    _emit("done", trained.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
