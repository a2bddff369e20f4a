"""What is live and what a rollback returns to: always both of before or both of after, never what was barred."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

import consolidation.skill
from consolidation.adapters import AdapterStore
from consolidation.errors import AdapterError, ConsolidationError
from consolidation.skill import Publisher
from memory.files import write_whole
from tests.consolidation.test_adapters import MANIFEST, trained


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "live", AdapterStore(tmp_path / "adapters"))


def admitted(publisher: Publisher, tmp_path: Path, name: str, base: str = "b") -> str:
    folder = trained(tmp_path / name, name.encode())
    return publisher.adapters.admit(folder, MANIFEST.model_copy(update={"base": base})).id


def test_both_tables_lie_in_one_file(publisher: Publisher, tmp_path: Path) -> None:
    one, two = (admitted(publisher, tmp_path, name) for name in "ab")
    publisher.make_live({"bank": one})
    publisher.make_live({"bank": two, "game": one})
    both = {"live": {"bank": two, "game": one}, "previous": {"bank": one}}
    assert {path.name: json.loads(path.read_text()) for path in publisher.folder.iterdir()} == {"live.json": both}


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("change", ["make_live", "rollback", "retire"])
def test_a_kill_between_writes_loses_neither_what_is_live_nor_the_way_back(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, at: int
) -> None:
    one, two, three = (admitted(publisher, tmp_path, name) for name in "abc")
    publisher.make_live({"bank": one})
    publisher.make_live({"bank": two})
    before = publisher.live(), publisher.previous()
    written: list[Path] = []

    def die(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == at:
            raise Killed
        write_whole(path, text)

    monkeypatch.setattr(consolidation.skill, "write_whole", die)
    do = {
        "make_live": lambda: publisher.make_live({"bank": three}),
        "rollback": publisher.rollback,
        "retire": lambda: publisher.retire({two}, "it had learnt what was forgotten"),
    }[change]
    after = {
        "make_live": ({"bank": three}, {"bank": two}),
        "rollback": ({"bank": one}, {"bank": two}),
        "retire": ({}, {"bank": one}),
    }
    if at == 1:
        with pytest.raises(Killed):
            do()
    else:
        do()  # there is no second write
    assert (publisher.live(), publisher.previous()) == (before if at == 1 else after[change])


def test_a_server_that_refuses_the_new_table_changes_nothing(tmp_path: Path) -> None:
    def refuse(routes: Mapping[str, Path]) -> NoReturn:
        raise ConsolidationError("the server is away")

    publisher = Publisher(tmp_path / "live", AdapterStore(tmp_path / "adapters"))
    one, two = (admitted(publisher, tmp_path, name) for name in "ab")
    publisher.make_live({"bank": one})
    strict = Publisher(publisher.folder, publisher.adapters, refuse)
    for do in (lambda: strict.make_live({"bank": two}), strict.rollback, lambda: strict.retire({one}, "x")):
        with pytest.raises(ConsolidationError, match="away"):
            do()
        assert (publisher.live(), publisher.previous()) == ({"bank": one}, {})
    assert not publisher.adapters.get(one).standing.barred


def test_a_folder_of_before_is_read_and_made_one_file_at_the_first_change(publisher: Publisher, tmp_path: Path) -> None:
    one, two = (admitted(publisher, tmp_path, name) for name in "ab")
    publisher.folder.mkdir()
    old = {"live": one, "previous": two}  # repositories may be called so
    (publisher.folder / "live.json").write_text(json.dumps(old))
    (publisher.folder / "previous.json").write_text(json.dumps({"bank": two}))
    assert (publisher.live(), publisher.previous()) == (old, {"bank": two})
    assert publisher.rollback() == {"bank": two} == publisher.live()
    assert publisher.previous() == old
    assert [path.name for path in publisher.folder.iterdir()] == ["live.json"]
    assert publisher.rollback() == old == publisher.live()
    assert publisher.previous() == {"bank": two}


@pytest.mark.parametrize(
    "damage", ["[1", '["a"]', "", "7", '{"live": {}}', '{"live": {}, "previous": {"bank": 7}}', '{"a": 1}']
)
def test_a_damaged_file_is_told_in_one_sentence(publisher: Publisher, damage: str) -> None:
    publisher.folder.mkdir()
    (publisher.folder / "live.json").write_text(damage)
    for read in (publisher.live, publisher.previous, lambda: publisher.make_live({})):
        with pytest.raises(AdapterError, match=r"^[^\n]+delete it to serve the bare base$"):
            read()
    assert (publisher.folder / "live.json").read_text() == damage


def test_what_was_barred_is_not_put_to_work_again(publisher: Publisher, tmp_path: Path) -> None:
    one, two = (admitted(publisher, tmp_path, name) for name in "ab")
    publisher.make_live({"bank": one})
    publisher.adapters.judge(two, "rejected", "it failed in bank", barred=True)
    for table in ({"bank": two}, {"bank": one, "game": two}):
        with pytest.raises(AdapterError, match=r"out of service for good \(it failed in bank\)"):
            publisher.make_live(table)
    publisher.adapters.judge(one, "rejected", "it fails in game", barred=True)
    publisher.make_live({"bank": one, "farm": admitted(publisher, tmp_path, "c")})  # where it is live, it is no news
    with pytest.raises(AdapterError, match="it fails in game"):
        publisher.make_live({"game": one})
    assert publisher.previous() == {"bank": one}


def test_a_retired_adapter_leaves_the_way_back_of_the_others(publisher: Publisher, tmp_path: Path) -> None:
    one, two, three = (admitted(publisher, tmp_path, name) for name in "abc")
    publisher.make_live({"bank": one, "game": three})
    publisher.make_live({"bank": two, "game": three})
    assert publisher.retire({two, "gone"}, "x") == {two}
    assert publisher.live() == {"game": three}
    assert publisher.rollback() == {"bank": one, "game": three}
    assert publisher.rollback() == {"game": three}


def test_only_what_was_trained_on_a_base_fits_it(publisher: Publisher, tmp_path: Path) -> None:
    own, other, unknown = (admitted(publisher, tmp_path, name, base) for name, base in [("a", "b"), ("c", "d"), ("e", "")])
    table = {"bank": own, "game": other, "farm": unknown}
    assert publisher.fitting(table, "b") == {"bank": own, "farm": unknown}
    assert publisher.fitting(table, "d") == {"game": other, "farm": unknown}
    with pytest.raises(AdapterError, match="no adapter"):
        publisher.fitting({"bank": "nope"}, "b")
