"""A repository's own history under the daemon: mined, configured, worked on, graded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.sandbox.ladder import probe
from agent.turns import Call, render_full
from memory.store import Store
from tests.agent.servers import NAME, ChatDouble, serving
from tests.daemon.running import daemon, run, status, until
from tests.eval.gold import Knowing
from tests.eval.histories import History

SOURCE = "def fee(price):\n    return {}\n"
TESTS = "from fees import fee\n\n\ndef test_free():\n    assert fee(0) == 0\n\n\ndef test_fee():\n    assert fee(100) == {}\n"
MORE = """
[model]
kind = "openai:{url}/v1#{name}"
tool_calls = "text"
context = 100000
[budget]
steps = 20
tokens = 1000000
seconds = 600
turn_tokens = 4096
[day]
batch = 1
[sleep]
window = ""
"""


def test_a_mined_history_is_worked_on_like_any_other_stream(tmp_path: Path) -> None:
    try:
        probe(trusted_generated=False)
    except SandboxError as error:
        pytest.skip(str(error))
    history, home = History(tmp_path / "shop"), tmp_path / "home"
    history.commit("start", {"fees.py": SOURCE.format(0), "test_fees.py": TESTS.format(0)})
    history.commit("Fees are a tenth of the price", {"fees.py": SOURCE.format("price // 10"), "test_fees.py": TESTS.format(10)})
    history.commit("Fees are a fifth of the price", {"fees.py": SOURCE.format("price // 5"), "test_fees.py": TESTS.format(20)})
    early = run("init", "--tasks", f"repo:{history.folder}", "--home", str(home))
    assert early.returncode == 0
    doctor = run("doctor", "--json", "--home", str(home))
    assert f"sleepyctl tasks mine {history.folder}" in doctor.stdout
    mined = run("tasks", "mine", str(history.folder), "--python", sys.executable, "--home", str(home), "--json", timeout=300)
    assert json.loads(mined.stdout)["total_tasks"] == 2, mined.stderr
    fix = [Call("edit", "fees.py", 2, 2, body="    return price // 10"), Call("test"), Call("submit"), Call("submit")]
    wrong = [Call("edit", "fees.py", 2, 2, body="    return 1"), Call("submit"), Call("submit")]
    scripts = {"Fees are a tenth": map(render_full, fix), "Fees are a fifth": map(render_full, wrong)}
    brain = Knowing({issue: list(lines) for issue, lines in scripts.items()})
    with serving(ChatDouble(brain, "lmstudio").app) as url:  # type: ignore[arg-type]
        config = f'[tasks]\nsource = "repo:{history.folder}"\n' + MORE.format(url=url, name=NAME)
        (home / "sleepyd.toml").write_text(config)
        left = home / "scratch" / "day-of-a-worker-that-was-killed" / "repo"
        left.mkdir(parents=True)
        with daemon(home):
            until(lambda: status(home)["tasks_ended"] == 2, "both tasks", 300)
            assert not left.exists()
            assert run("stop", "--home", str(home)).returncode == 0
    with Store(home / "sleepy.db", read_only=True) as store:
        played = [store.trajectory(result.trajectory_id) for result in store.results()]
    assert [str(t.outcome) for t in played] == ["resolved", "unresolved"], [t.reason for t in played]
    assert {t.repo for t in played} == {"shop"}
    assert "test_fee" not in "".join(t.reason for t in played)
