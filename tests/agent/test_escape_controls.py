"""Controls of the escape suite: the same programs, in an arena where nothing contains them, get what they want."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.sandbox import Limits
from agent.sandbox.cgroup import Group
from tests.agent.arena import Arena
from tests.agent.attacks import ATTACKS, FLOODS, POISON, SURVIVALS, UNCONTROLLED
from tests.agent.hosts import LIMITS, MIB, Host, a_host, alive, most_alive, run

UNBOUNDED = Limits(seconds=20, memory_bytes=1_500 * MIB, processes=150, output_bytes=MIB)
"""For the arena: past every limit of the suite, and what this machine can bear."""
FORKS = replace(UNBOUNDED, seconds=3, processes=60)


@pytest.fixture(scope="module", autouse=True)
def arena_works() -> None:
    nothing = ["bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"]
    try:
        subprocess.run(nothing, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no arena for controls without bubblewrap: {error}")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with a_host(tmp_path, monkeypatch) as made:
        yield made


def in_arena(host: Host, code: str, limits: Limits = UNBOUNDED, careless_seconds: float | None = None) -> str:
    """What it says where nothing contains it."""
    return run(Arena(host.port, host.abstract, host.secret, careless_seconds), host, code, limits).stdout


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in UNCONTROLLED])
def test_the_attack_works_where_nothing_contains_it(host: Host, name: str) -> None:
    if name == "sysrq" and not Path("/proc/sysrq-trigger").exists():
        pytest.skip("this kernel has no sysrq")
    said = in_arena(host, ATTACKS[name][1])
    assert "ESCAPED" in said or not host.unharmed(), said


@pytest.mark.parametrize("name", SURVIVALS)
def test_it_does_survive_a_careless_sandbox(host: Host, name: str) -> None:
    said = in_arena(host, SURVIVALS[name], careless_seconds=0.5)
    assert int(said.rpartition("SURVIVED ")[2]) > 0
    assert alive(host.abstract) == [], "the arena is gone with all that is in it"


@pytest.mark.parametrize("name", FLOODS)
def test_the_flood_rises_where_nothing_bounds_it(host: Host, name: str) -> None:
    group = Group.made(1, MIB)
    if group is None:
        pytest.skip("no control group can be made here, and nothing else would bound the arena for sure")
    group.close()
    with most_alive(host.abstract) as most:
        said = in_arena(
            host, FLOODS[name][1], replace(UNBOUNDED, seconds=3, processes=60) if name == "fork bomb" else UNBOUNDED
        )
    risen = {"fork bomb": most[0] > LIMITS.processes + 6, "output": len(said) > LIMITS.output_bytes + 200}
    assert risen.get(name, "ESCAPED" in said), said[-300:]


def test_the_poisoned_git_folder_runs_code_for_whoever_asks_git(host: Host) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    in_arena(host, POISON + "import subprocess; subprocess.run(['git', 'status'])")
    assert (host.outside / "new").exists()
