"""Attacks as small programs, on every rung this machine has: all contained. That they work: `test_escape_controls`.

Each prints ESCAPED when it got what it wanted; some are judged from outside, by what the host looks like afterwards.
"""

# ruff: noqa: E501 - programs in strings
from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.sandbox import Sandbox
from eval.grading import grade
from eval.pocket.stream import PocketStream
from memory.trajectories import Outcome
from tests.agent.attacks import ATTACKS, FLOODS, POISON, SURVIVALS
from tests.agent.hosts import LIMITS, Host, a_host, alive, most_alive, run
from tests.agent.rungs import RUNGS, rung


@pytest.fixture(scope="module", params=RUNGS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return rung(request.param)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with a_host(tmp_path, monkeypatch) as made:
        yield made


def attack(sandbox: Sandbox, host: Host, code: str, seconds: float = 10) -> str:
    """Run it; the host must be as before."""
    limits = replace(LIMITS, seconds=3 * seconds if sandbox.name.startswith("docker") else seconds)  # a slow start
    result = run(sandbox, host, code, limits)
    assert result.seconds < limits.seconds + 6
    assert host.unharmed()
    assert host.secret not in result.stdout
    return result.stdout


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_contained(sandbox: Sandbox, host: Host, name: str) -> None:
    why, code = ATTACKS[name]
    assert "ESCAPED" not in attack(sandbox, host, code), f"expected to hold: {why}"


@pytest.mark.parametrize("name", SURVIVALS)
def test_nothing_survives(sandbox: Sandbox, host: Host, name: str) -> None:
    attack(sandbox, host, SURVIVALS[name], seconds=1)
    until = time.monotonic() + 5
    while (left := alive(host.abstract)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_bounded(sandbox: Sandbox, host: Host, name: str) -> None:
    why, code = FLOODS[name]
    with most_alive(host.abstract) as most:
        said = attack(sandbox, host, code, seconds=2)
    assert "ESCAPED" not in said, f"expected to hold: {why}"
    assert len(said) < LIMITS.output_bytes + 200
    assert most[0] <= LIMITS.processes + 6  # and the sandbox's own helpers
    assert alive(host.abstract) == []


def test_folders_too_deep_to_remove_are_gone_when_the_run_is_over(sandbox: Sandbox, host: Host) -> None:
    code = "for n in range(600): os.mkdir('d' * 20); os.chdir('d' * 20)\nopen('deep', 'w').write('x')"
    attack(sandbox, host, code)
    assert max(len(p.parts) for p in host.workspace.root.rglob("*")) < 200
    shutil.rmtree(host.workspace.root)


def test_odd_names_break_nobody(sandbox: Sandbox, host: Host) -> None:
    code = (
        r"[open(n, 'w').close() for n in (b'-rf', b'a\nb', b'\x1b[2J', b'\xff\xfe', b'$(touch x)', b' ', b'~', b'n' * 255)]"
        "\nos.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('sock'); os.symlink('loop', 'loop'); os.mkdir('shut', 0)"
    )
    attack(sandbox, host, code)
    assert set(host.workspace.snapshot()) >= {"shop/fees.py", "-rf"}
    assert "fifo" not in host.workspace.snapshot()


def test_a_poisoned_git_folder_runs_nothing_on_the_host(sandbox: Sandbox, host: Host) -> None:
    """Contained by never asking git about a workspace: what is graded is a copy of text files without it."""
    attack(sandbox, host, POISON)
    stream = PocketStream(seed=4, repos=("bank",), count=1)
    assert grade(stream.secret(stream.tasks()[0]), host.workspace.snapshot(), sandbox)[0] is Outcome.UNRESOLVED
    assert not (host.outside / "new").exists()
