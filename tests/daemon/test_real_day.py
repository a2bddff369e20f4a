"""A whole sequence of the benchmark under the daemon: pytest's 19 tasks, played by a server that knows the fixes.

See `tests.eval.test_native_real` for SLEEPY_MIRRORS and SLEEPYD_DATA. SLEEPY_DAY takes only the first so
many of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.repositories import Mirrors, checkout
from daemon.cli.verify import clones
from eval.swebench.dataset import read
from memory.store import Store
from tests.agent.servers import NAME, ChatDouble, serving
from tests.daemon.running import daemon, run, status, until
from tests.eval.gold import Knowing, gold_turns
from tests.eval.test_native_real import DATA, MIRRORS
from tests.eval.test_native_real import pytestmark as real

pytestmark = [*real, pytest.mark.slow]
REPO = "pytest-dev/pytest"
COUNT = int(os.environ.get("SLEEPY_DAY", "0"))
CONFIG = """
[tasks]
source = "swe-bench-cl"
repos = ["{repo}"]
count = {count}
[model]
kind = "openai:{url}/v1#{name}"
tool_calls = "text"
context = 1000000
[budget]
steps = 80
tokens = 100000000
seconds = 3600
turn_tokens = 8192
[day]
batch = 2
[sleep]
window = ""
"""


def test_the_outcomes_of_a_whole_sequence_are_the_gold_verdicts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    dataset, mirrors = read(DATA), Mirrors(home / "mirrors")
    tasks = dataset.tasks([REPO])[: COUNT or None]
    found = clones(Path(MIRRORS), REPO)
    if not found:
        pytest.skip(f"no clone of {REPO} in {MIRRORS}")
    fetched = run("data", "fetch", "swe-bench-cl", "--from", str(DATA), "--accept-rebuilt", "--home", str(home))
    assert fetched.returncode == 0, fetched.stderr
    assert run("tasks", "mirror", REPO, "--from", str(found[0]), "--home", str(home)).returncode == 0
    scripts = {}
    for task in tasks:
        made = checkout(mirrors.get(REPO), dataset.base(task.id).commit, tmp_path / "looked" / task.id)
        scripts[task.issue] = gold_turns(made, dataset.secret(task.id).patch)
        made.remove()
    with serving(ChatDouble(Knowing(scripts), "lmstudio").app) as url:  # type: ignore[arg-type]
        (home / "sleepyd.toml").write_text(CONFIG.format(repo=REPO, count=COUNT, url=url, name=NAME))
        with daemon(home):
            until(lambda: status(home)["tasks_ended"] == len(tasks), "the whole sequence", 3_000)
            assert run("stop", "--home", str(home)).returncode == 0
    ids = ",".join(task.id for task in tasks)
    verified = run("tasks", "verify", "--gold", "--known", "--ids", ids, "--home", str(home), "--json", timeout=300)
    gold = {identity: row["base_fails"] and row["gold_resolves"] for identity, row in json.loads(verified.stdout).items()}
    with Store(home / "sleepy.db", read_only=True) as store:
        results = store.results()
        told = {result.task_id: store.trajectory(result.trajectory_id).reason for result in results}
    outcomes = {result.task_id: str(result.outcome) for result in results}
    assert {i for i, outcome in outcomes.items() if outcome == "resolved"} == {i for i, good in gold.items() if good}, told
    assert all(outcomes[identity] == "infrastructure_failure" for identity, good in gold.items() if not good), told
    assert results[0].task_id in {task.id for task in tasks[:2]}
    secrets = [dataset.secret(task.id) for task in tasks]
    logged = "".join(path.read_text(errors="replace") for path in (home / "logs").iterdir())
    tests = {test.rpartition("::")[2].partition("[")[0] for secret in secrets for test in secret.fail_to_pass}
    assert not [test for test in tests if test and f"::{test}" in logged]
