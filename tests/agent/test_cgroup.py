"""What killed owners of control groups leave behind."""

import os
import time
from pathlib import Path

from agent.sandbox import cgroup


def dead_pid() -> int:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


def test_only_empty_old_groups_of_the_dead_are_removed(tmp_path: Path) -> None:
    dead, old = dead_pid(), time.time() - 2 * cgroup.OLD_SECONDS
    names = [f"sleepy-{dead}-{word}" for word in ("a", "busy", "young")]
    for name in (*names, f"sleepy-{os.getpid()}-b", "sleepy-x", "z-1"):
        (tmp_path / name).mkdir()
    (tmp_path / f"sleepy-{dead}-busy" / "member").touch()
    for path in tmp_path.iterdir():
        if not path.name.endswith("young"):
            os.utime(path, (old, old))
    cgroup._swept(tmp_path)
    gone = {f"sleepy-{dead}-a"} - {path.name for path in tmp_path.iterdir()}
    assert gone == {f"sleepy-{dead}-a"}
    assert len(list(tmp_path.iterdir())) == 5
