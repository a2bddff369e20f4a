"""One try at a job, and what both executors say and do about it in the same way."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from importlib import import_module
from pathlib import Path
from typing import cast

from eval.experiments.executor import Done, Work
from eval.experiments.life import Life, LifeConfig
from memory.hashing import source_hash

TRIES = 3
"""How often a job is begun whose worker was lost each time."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore::FutureWarning"}
ONE_THREAD = {**dict.fromkeys(_THREADS, "1"), **_QUIET, "TOKENIZERS_PARALLELISM": "false"}
"""Set in a worker before it imports anything that reads them."""
LINES = 12
PACKAGES = ("agent", "consolidation", "eval", "memory")


def attempt(work: bytes, given: LifeConfig) -> Life | str:
    """The life, or what went wrong: the exception, and the last lines of where it came from. `work` is as `packed`.

    Ctrl-C and the end of the process go through.
    """
    try:
        return cast(Work, pickle.loads(work))(given)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is this cell's own failure and no other's)
        return explained(error)


def returned(key: str, found: Life | str, worker: str, tries: int) -> Done:
    """What came back of a job."""
    if isinstance(found, str):
        return Done(key, None, found, worker, tries)
    return Done(key, found, "", worker, tries)


def explained(error: BaseException) -> str:
    """An exception in its own words, and the last lines of its traceback."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return f"{type(error).__name__}: {error}\n" + "\n".join(lines[-LINES:])


def here() -> str:
    """This process, by machine and PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


def packages() -> list[Path]:
    """The folders of the packages that decide what a life does."""
    return [Path(str(import_module(name).__file__)).parent for name in PACKAGES]


def code_hash() -> str:
    """Hash of the sources below `packages()`: two machines live the same lives only where it is the same."""
    return source_hash(tuple(packages()))


def packed(work: Work) -> bytes:
    """The work, to be opened in another process.

    Raises:
        TypeError: it cannot be sent there.
    """
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"{work!r} cannot be sent to another process ({error}); use a function of a module") from error
