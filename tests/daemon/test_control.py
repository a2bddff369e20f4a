"""The control socket: what the daemon promises about it, tried on a real one."""

import http.client
import io
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
import urllib3

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.client import ask
from daemon.errors import DaemonError, NoDaemonError, RefusedError
from daemon.home import Home
from daemon.life import PAUSED
from daemon.views import promoted_adapters
from memory.nights import Night
from memory.store import Store
from tests.daemon.running import daemon, run, status, until, write_config
from tests.daemon.watched import NOW, adapter, life, promoted


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon that has worked through its two tasks and has too few for a night."""
    home = tmp_path_factory.mktemp("control")
    write_config(home, count=2, after=0)
    config = home / "sleepyd.toml"
    config.write_text(config.read_text().replace("min_resolved = 2", "min_resolved = 50"))
    with daemon(home):
        until(lambda: status(home)["tasks_ended"] == 2, "two tasks")
        yield home


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("sleepyd", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def test_only_the_owner_can_reach_it(home: Path) -> None:
    assert stat.S_IMODE((home / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_openapi_document_names_every_command(home: Path) -> None:
    paths = ask(home / "control.sock", "GET", "/openapi.json")["paths"]
    assert {"/status", "/sleep", "/wake", "/pause", "/resume", "/stop", "/tasks", "/nights", "/metrics", "/adapters"} <= set(
        paths
    )


def sent(home: Path, case: Any) -> requests.Response:
    """Send a generated case over the Unix socket; the answer as schemathesis wants it."""
    request = requests.Request(**case.as_transport_kwargs(base_url="http://sleepyd")).prepare()
    connection = Connection(home / "control.sock")
    connection.request(str(request.method), request.path_url, request.body, dict(request.headers))
    answer = connection.getresponse()
    raw = urllib3.HTTPResponse(io.BytesIO(answer.read()), answer.headers.items(), answer.status, preload_content=False)
    connection.close()
    return requests.adapters.HTTPAdapter().build_response(request, raw)


FUZZ = hypothesis.settings(max_examples=50, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None)


def fuzz(home: Path, operation: Any) -> None:
    """Valid requests are answered as described; invalid ones are refused as JSON, never with a 5xx."""

    @hypothesis.seed(1)
    @FUZZ
    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.POSITIVE))
    def valid(case: Any) -> None:
        case.validate_response(sent(home, case))

    @hypothesis.seed(1)
    @FUZZ
    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
    def invalid(case: Any) -> None:
        response = sent(home, case)
        assert response.status_code < 500, response.text
        response.json()

    valid()
    if operation.body or operation.query:
        invalid()


def test_no_request_made_from_the_openapi_document_breaks_it(home: Path) -> None:
    document = ask(home / "control.sock", "GET", "/openapi.json")
    del document["paths"]["/stop"]  # it would do what it says
    operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(operations) == sum(len(methods) for methods in document["paths"].values())
    for operation in operations:
        fuzz(home, operation)
    assert status(home)["state"] in ("awake", "paused")


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 4096, b"GET / HTTP/9.9\r\n\r\n", b"POST /sleep HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{", b"x" * 200_000],
)
def test_garbage_on_the_socket_leaves_it_working(home: Path, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(home / "control.sock"))
        rude.sendall(garbage[:60_000])
    assert status(home)["tasks_ended"] == 2


def test_what_makes_no_sense_now_is_refused_with_the_reason(home: Path) -> None:
    socket_path = home / "control.sock"
    ask(socket_path, "POST", "/resume")
    with pytest.raises(RefusedError, match="not asleep"):
        ask(socket_path, "POST", "/wake")
    with pytest.raises(RefusedError, match="no adapter"):
        ask(socket_path, "POST", "/adapters/promote", {"adapter": "nonsense"})
    with pytest.raises(DaemonError, match="dry_runn"):
        ask(socket_path, "POST", "/sleep", {"dry_runn": True})


def test_a_pause_outlives_the_process(tmp_path: Path) -> None:
    write_config(tmp_path, count=8, after=0)
    with daemon(tmp_path):
        assert run("pause", "--home", str(tmp_path)).returncode == 0
        until(lambda: status(tmp_path)["state"] == "paused", "the pause")
        assert run("stop", "--home", str(tmp_path)).returncode == 0
    with daemon(tmp_path):
        assert status(tmp_path)["state"] == "paused"
        ended = status(tmp_path)["tasks_ended"]
        assert run("resume", "--home", str(tmp_path)).returncode == 0
        until(lambda: status(tmp_path)["tasks_ended"] > ended, "it to go on")


def test_a_second_daemon_names_the_first(home: Path) -> None:
    second = run("run", "--home", str(home))
    assert second.returncode == 1
    assert f"PID {status(home)['pid']}" in second.stderr


def test_a_dead_socket_is_replaced_and_a_foreign_file_is_not(tmp_path: Path) -> None:
    write_config(tmp_path, count=2, after=0)
    (tmp_path / "control.sock").write_text("mine")
    refused = run("run", "--home", str(tmp_path))
    assert refused.returncode == 1
    assert "is not a socket of ours" in refused.stderr
    assert (tmp_path / "control.sock").read_text() == "mine"
    (tmp_path / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.sock"))
    with daemon(tmp_path):
        assert status(tmp_path)["pid"] > 1


def test_without_a_daemon_reading_commands_read_the_store_and_others_exit_with_3(tmp_path: Path, home: Path) -> None:
    empty = run("status", "--home", str(tmp_path), "--json")
    assert (empty.returncode, json.loads(empty.stdout)["state"]) == (3, "stopped")
    assert "no daemon runs" in empty.stderr
    assert run("pause", "--home", str(tmp_path)).returncode == 3
    assert run("sleep-now", "--home", str(tmp_path)).returncode == 3
    with pytest.raises(NoDaemonError):
        ask(tmp_path / "control.sock", "GET", "/status")


def test_every_reading_command_prints_one_json_value(home: Path) -> None:
    for command in (["status"], ["tasks"], ["nights"], ["metrics"], ["adapters", "list"], ["sleep-now", "--dry-run"]):
        done = run(*command, "--home", str(home), "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    lines = run("logs", "--home", str(home), "--json", "--event", "task.ended").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["task.ended"] * 2


def test_an_unknown_flag_is_a_usage_error(home: Path) -> None:
    done = run("status", "--jsn", "--home", str(home))
    assert done.returncode == 2
    assert "--json" in done.stderr


VERDICT = {"promoted": True, "why": "it passed", "numbers": {"base_skills.tasks": 4.0}}


def with_open_night(home: Path, store: Store, published: bool) -> tuple[str, str]:
    """An adapter is live, another competes with it in a night that is open, and perhaps has put it to work already."""
    first, second = adapter(home, "first", NOW), adapter(home, "second", NOW)
    promoted(home, store, {"bank": first}, NOW)
    store.open_night(Night(id="open", started_at=NOW, strategy="s", seed=0, config_hash="c"))
    store.record_step("open", "before", {"live": {"bank": first}})
    store.record_step("open", "guards", {"verdict": VERDICT, "artefacts": {}, "asked": 4})
    if published:
        Publisher(Home(home).live, AdapterStore(Home(home).adapters)).make_live({"bank": second})
        store.record_step("open", "publish", {"live": {"bank": second}})
    return first, second


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("how", ["woken", "failed"])
def test_a_night_that_has_published_keeps_its_verdict_however_it_is_closed(tmp_path: Path, how: str, published: bool) -> None:
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        _, second = with_open_night(tmp_path, store, published)
        now = life(tmp_path, store)
        if how == "woken":
            assert now.ask_wake()
            assert not now.ask_wake()
        else:
            now._sleeping._abandon("ConfigError: it was changed")
        night = store.nights()[-1]
        assert night.verdict is not None
        assert night.verdict.promoted is published
        assert night.error
        assert (night.verdict.model_dump() == VERDICT) is published
        assert (night.adapter is not None) is published
        assert ("broke off" in night.verdict.why) is not published
        assert (second in promoted_adapters(store)) is published


def test_what_is_live_stays_as_it_is_while_a_night_waits_to_go_on(tmp_path: Path) -> None:
    write_config(tmp_path, count=2, after=0)
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        first, _ = with_open_night(tmp_path, store, published=False)
        store.set_note(PAUSED, "1")
    barred = adapter(tmp_path, "barred", NOW)
    AdapterStore(Home(tmp_path).adapters).judge(barred, "rejected", "it failed in bank", barred=True)
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["state"] == "paused", "the pause")
        for command in (["promote", first], ["rollback"]):
            done = run("adapters", *command, "--home", str(tmp_path))
            assert done.returncode == 1
            assert "`sleepyctl wake-now` closes it" in done.stderr
            assert status(tmp_path)["live"] == {"bank": first}
        assert run("wake-now", "--home", str(tmp_path)).returncode == 0
        assert status(tmp_path)["nights"] == 2
        assert run("wake-now", "--home", str(tmp_path)).returncode == 1
        assert run("adapters", "rollback", "--home", str(tmp_path)).returncode == 0
        assert status(tmp_path)["live"] == {}
        done = run("adapters", "promote", barred, "--home", str(tmp_path))
        assert (done.returncode, "was taken out of service: it failed in bank" in done.stderr) == (1, True)
