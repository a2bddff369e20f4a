"""Training in a child process: memory comes back, and a crash does not take the daemon along.

Parent side: `ChildTrainer`. Child side: `python -m consolidation.trainers.child FOLDER`, which
reads the job from the folder and prints one JSON event per line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from consolidation.errors import ConsolidationError, TrainingRefused
from consolidation.trainers.base import Example, Job, Progress, Trained, check_examples, read_job, write_job

ADAPTER = "adapter"
ERRORS = "stderr.log"


class ChildTrainer:
    """Runs torch + PEFT training in its own process; killing the parent's wait kills the child."""

    name = "torch"

    def fit(self, job: Job, examples: Sequence[Example], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """See the `Trainer` seam; `out` is the job's folder and gets the subfolder `adapter`."""
        check_examples(job, examples)
        write_job(out, job, examples)
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
        argv = [sys.executable, "-m", "consolidation.trainers.child", str(out)]
        with (
            (out / ERRORS).open("w", encoding="utf-8") as errors,
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as child,
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
        raise ConsolidationError(f"the training process ended with status {code}: {why} (all of it: {out / ERRORS})")


def _emit(event: str, data: object) -> None:
    print(json.dumps({"event": event, "data": data}), flush=True)


def main(argv: Sequence[str]) -> int:
    """The child's side."""
    from consolidation.trainers.torch_lora import fit

    folder = Path(argv[1])
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
