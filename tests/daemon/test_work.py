"""The work itself, in this process: who works on which task, and what a server is asked to serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.adapters import read_peft
from agent.pocket import WEIGHTS
from consolidation.adapters import AdapterStore
from consolidation.publishing import PublishError
from consolidation.publishing.ollama import OllamaPublisher
from consolidation.skill import ALL, Publisher
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.work import Work
from eval.watch import is_control
from memory.store import Store
from tests.agent import loras
from tests.consolidation import mixing
from tests.consolidation.adapting import stored
from tests.doubles.pocket_ollama import NAME, pocket_ollama


@contextmanager
def working(root: Path, **settings: Any) -> Iterator[Work]:
    home = Home(root)
    home.make()
    config = Config.model_validate({"arm": "skill", "tasks": {"repos": ["bank"]}} | settings)
    with Store(home.store) as store:
        work = Work(home, config, store, lambda event, **fields: None, lambda: False)
        yield work
        work.close()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_controls_are_worked_on_by_the_bare_base(tmp_path: Path, share: float) -> None:
    home = Home(tmp_path / "home")
    home.make()
    adapter = stored(AdapterStore(home.adapters), read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    Publisher(home.live, AdapterStore(home.adapters)).make_live({"bank": adapter.id})
    settings = {"watch": {"control_share": share}, "budget": {"steps": 2}}
    with working(home.root, **settings) as work:
        done = work.play(8)
        assert done["taken"] == 8
        played = [work.store.trajectory(result.trajectory_id) for result in work.store.results()]
    assert len(played) == 8
    assert {t.task_id: t.adapter for t in played} == {
        t.task_id: None if is_control(t.task_id, share) else adapter.id for t in played
    }
    assert share == 0 or len({t.adapter for t in played}) == 2


def test_an_adapter_of_another_base_does_not_serve_and_that_is_said_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    store = AdapterStore(home.adapters)
    own = stored(store, read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    foreign = store.admit(
        loras.good(tmp_path / "other", 2), own.manifest.model_copy(update={"base": "elsewhere", "attachments": {}})
    )
    Publisher(home.live, store).make_live({"bank": own.id, "game": foreign.id})
    with working(home.root) as work:
        told: list[tuple[str, dict[str, Any]]] = []
        work.emit = lambda event, **fields: told.append((event, fields))
        assert [work.routes() for _ in range(3)] == [{"bank": own.folder}] * 3
        ((event, fields),) = told
        assert event == Event.ADAPTER_LEFT_OUT
        assert fields["adapters"] == {"game": foreign.id}
        assert own.manifest.base in fields["why"]
        assert set(fields) == set(Event.ADAPTER_LEFT_OUT.fields)
        assert work.publisher.live() == {"bank": own.id, "game": foreign.id}  # its base may come back


def test_where_a_server_keeps_its_weights_to_itself_all_that_is_live_serves(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    one = stored(AdapterStore(home.adapters), read_peft(loras.good(tmp_path / "lora", 1)), WEIGHTS)
    Publisher(home.live, AdapterStore(home.adapters)).make_live({"bank": one.id})
    with working(home.root, model={"kind": "openai:http://127.0.0.1:9/v1#some"}) as work:
        assert work.routes() == {"bank": one.folder}


def test_on_ollama_a_scope_follows_what_serves_it_and_a_mixture_is_refused(tmp_path: Path) -> None:
    with pocket_ollama(tmp_path / "ollama") as double:
        model = {"kind": f"ollama:{NAME}", "base": "pocket", "host": double.host, "context": 1280}
        with working(tmp_path / "home", model=model) as work:
            plain = [loras.good(tmp_path / f"lora-{seed}", seed) for seed in (1, 2)]
            assert isinstance(work.server, OllamaPublisher)
            work.align({"bank": plain[0]})
            assert work.server.live("bank") == work.server.tag(plain[0])
            work.align({ALL: plain[1]})
            assert {work.server.live("bank"), work.server.live(ALL)} == {work.server.tag(plain[1])}
            with pytest.raises(PublishError, match="cannot choose among the experts of a mixture"):
                work.align({"bank": mixing.mixture(tmp_path / "mixture")})
            assert work.server.live("bank") == work.server.tag(plain[1])
            work.align({})
            assert {work.server.live("bank"), work.server.live(ALL)} == {NAME}
