"""Clean-up: what is over budget goes, oldest first; what is live, previous, pinned or of an open night never does."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore, Manifest
from consolidation.skill import Publisher
from daemon.config import ResourceConfig
from daemon.events import Event
from daemon.home import Home
from daemon.logs import LogConfig, Logger, configure, shutdown
from daemon.resources import DISCARDED, clean_up, free_mb, pin, pinned, size_of
from memory.nights import Night
from memory.store import Store
from tests.daemon.disks import mounted

REPOSITORY = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SMALLEST = ResourceConfig(nights_mb=1, adapters_mb=1)
MIB = 1 << 20
HALF = MIB // 2
MANIFEST = Manifest(
    created_at=NOON, base="b", strategy="s", seed=0, data="d", scope=("bank",), config_hash="c", loss_first=2.0, loss_last=1.0
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "state")
    home.make()
    return home


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with Store(home.store) as store:
        yield store


@pytest.fixture
def publisher(home: Home) -> Publisher:
    return Publisher(home.live, AdapterStore(home.adapters))


@pytest.fixture
def log(home: Home) -> Iterator[Logger]:
    yield configure(home.logs, LogConfig(), None)
    shutdown()


def told(home: Home, event: Event) -> list[dict[str, object]]:
    lines = [json.loads(line) for path in home.logs.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def adapter(home: Home, age_hours: float, size: int = HALF) -> str:
    """A real adapter of the store, that many hours old."""
    folder = home.root / "trained"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(random.Random(f"{age_hours}").randbytes(size))
    found = AdapterStore(home.adapters).admit(folder, MANIFEST)
    shutil.rmtree(folder)
    aged(found.folder, age_hours)
    return found.id


def night_files(home: Home, name: str, age_hours: float, size: int = HALF) -> Path:
    folder = home.nights / name
    (folder / "bank").mkdir(parents=True)
    (folder / "bank" / "examples.jsonl").write_bytes(b"x" * size)
    aged(folder, age_hours)
    return folder


def aged(folder: Path, hours: float) -> None:
    when = time.time() - hours * 3600
    os.utime(folder, (when, when))


def night(name: str = "n1") -> Night:
    return Night(id=name, started_at=NOON, strategy="s", seed=0, config_hash="c")


def adapters(home: Home) -> set[str]:
    return {one.id for one in AdapterStore(home.adapters).list()}


def test_within_the_budget_nothing_is_removed(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    kept = {adapter(home, 3, HALF - 2000), adapter(home, 2, HALF - 2000)}
    folder = night_files(home, "n0", 1)
    assert clean_up(home, SMALLEST, publisher, store, log) == []
    assert adapters(home) == kept
    assert folder.is_dir()
    assert told(home, Event.CLEANUP_REMOVED) == []


def test_the_oldest_go_first_and_no_more_than_must(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    ages = (5, 1, 4, 2, 3)
    made = {age: adapter(home, age, MIB // 3) for age in ages}
    nights = {age: night_files(home, f"n{age}", age, MIB // 3) for age in ages}
    removed = clean_up(home, SMALLEST, publisher, store, log)
    assert removed == [*(nights[age] for age in (5, 4)), *(home.adapters / made[age] for age in (5, 4, 3))]
    assert adapters(home) == {made[1], made[2]}
    assert {path.name for path in home.nights.iterdir()} == {"n1", "n2", "n3"}
    assert clean_up(home, SMALLEST, publisher, store, log) == []


def test_what_is_live_previous_or_pinned_stays_however_old_and_large(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    live, previous, kept, old, new = (adapter(home, age, 2 * MIB) for age in (9, 8, 7, 6, 5))
    publisher.make_live({"bank": previous})
    publisher.make_live({"bank": live})
    pin(store, kept, keep=True)
    assert clean_up(home, SMALLEST, publisher, store, log) == [home.adapters / old, home.adapters / new]
    assert adapters(home) == {live, previous, kept}
    assert publisher.rollback() == {"bank": previous}, "there is always a way back"


def test_what_stays_does_not_use_up_the_budget_of_the_others(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    live, other = adapter(home, 9, 5 * MIB), adapter(home, 8)
    publisher.make_live({"bank": live})
    assert clean_up(home, SMALLEST, publisher, store, log) == []
    assert adapters(home) == {live, other}


def test_every_repositorys_live_adapter_stays(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    bank, game, shop = (adapter(home, age, 2 * MIB) for age in (3, 2, 1))
    publisher.make_live({"bank": bank, "game": game})
    assert clean_up(home, SMALLEST, publisher, store, log) == [home.adapters / shop]


def test_what_is_no_longer_pinned_can_go(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    one, two = adapter(home, 2, 2 * MIB), adapter(home, 1, 2 * MIB)
    for name in (one, two, one):
        pin(store, name, keep=True)
    assert pinned(store) == {one, two}
    pin(store, one, keep=False)
    pin(store, "never pinned", keep=False)
    assert pinned(store) == {two}
    assert clean_up(home, SMALLEST, publisher, store, log) == [home.adapters / one]


def test_the_files_and_adapters_of_an_open_night_stay_until_it_is_over(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    bank, game, other = (adapter(home, age, 2 * MIB) for age in (9, 8, 7))
    folder, past = night_files(home, "n1", 9, 2 * MIB), night_files(home, "n0", 8, 2 * MIB)
    store.open_night(night())
    store.record_step("n1", "pairs", {"pairs": 3, "hash": "h"})
    store.record_step("n1", "train bank", {"adapter": bank, "trained": {}})
    store.record_step("n1", "train game", {"adapter": game, "trained": {}})
    assert clean_up(home, SMALLEST, publisher, store, log) == [past, home.adapters / other]
    assert folder.is_dir()
    assert adapters(home) == {bank, game}
    store.close_night(night().model_copy(update={"ended_at": NOON}))
    assert clean_up(home, SMALLEST, publisher, store, log) == [folder, home.adapters / bank, home.adapters / game]


@pytest.mark.parametrize("table", ["live.json", "previous.json"])
@pytest.mark.parametrize("damage", ["[1", '["a"]', "", "7"])
def test_where_it_is_not_known_what_is_live_nothing_is_removed(
    home: Home, store: Store, publisher: Publisher, log: Logger, table: str, damage: str
) -> None:
    kept = {adapter(home, age, 2 * MIB) for age in (2, 1)}
    folder = night_files(home, "n0", 3, 2 * MIB)
    (home.live / table).write_text(damage)
    assert clean_up(home, SMALLEST, publisher, store, log) == []
    assert adapters(home) == kept
    assert folder.is_dir()


def test_every_removal_is_in_the_log(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    made = adapter(home, 2, 2 * MIB)
    folder = night_files(home, "n0", 1, 3 * MIB)
    bytes_of = {str(path): size_of(path) for path in (folder, home.adapters / made)}
    removed = clean_up(home, SMALLEST, publisher, store, log)
    assert {str(line["path"]): line["bytes"] for line in told(home, Event.CLEANUP_REMOVED)} == bytes_of
    assert [str(path) for path in removed] == list(bytes_of)


def test_a_removal_that_is_interrupted_leaves_no_half_folder_under_its_name(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    script = """
import sys
from pathlib import Path
from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.config import ResourceConfig
from daemon.home import Home
from daemon.logs import get_logger
from daemon.resources import clean_up
from memory.store import Store

home = Home(Path(sys.argv[1]))
with Store(home.store) as store:
    print("ready", flush=True)
    clean_up(home, ResourceConfig(nights_mb=1), Publisher(home.live, AdapterStore(home.adapters)), store, get_logger())
"""
    count = 3000
    folder = home.nights / "n0"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.json").write_bytes(b"x" * 1000)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(home.root)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    discarded = home.nights / f"{DISCARDED}n0"
    patience = time.monotonic() + 60
    while not (discarded.is_dir() and len(list(discarded.iterdir())) < count) and time.monotonic() < patience:
        pass
    process.kill()
    process.communicate()
    assert 0 < len(list(discarded.iterdir())) < count, "it was not interrupted in the middle, so nothing was shown"
    assert not folder.exists()
    clean_up(home, SMALLEST, publisher, store, log)
    assert list(home.nights.iterdir()) == []


def test_what_an_interrupted_removal_left_is_no_adapter(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    made = adapter(home, 1)
    left = home.adapters / f"{DISCARDED}0123"
    left.mkdir()
    (left / "adapter_config.json").write_text("{}")
    assert adapters(home) == {made}
    assert clean_up(home, SMALLEST, publisher, store, log) == []
    assert [path.name for path in home.adapters.iterdir()] == [made]


def test_links_are_not_followed_out_of_the_state_directory(
    home: Home, store: Store, publisher: Publisher, log: Logger, tmp_path: Path
) -> None:
    outside = tmp_path / "thesis"
    outside.mkdir()
    (outside / "chapter").write_bytes(b"x" * 3 * MIB)
    (home.nights / "link").symlink_to(outside)
    folder = night_files(home, "n0", 1, 2 * MIB)
    (folder / "link").symlink_to(outside)
    assert clean_up(home, SMALLEST, publisher, store, log) == [folder]
    assert (outside / "chapter").stat().st_size == 3 * MIB


def test_plain_files_are_no_folders_to_remove(home: Home, store: Store, publisher: Publisher, log: Logger) -> None:
    (home.nights / "notes").write_bytes(b"x" * 3 * MIB)
    assert clean_up(home, SMALLEST, publisher, store, log) == []
    assert (home.nights / "notes").exists()


def test_a_state_directory_without_the_folders_is_within_its_budget(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    home.nights.rmdir()
    home.adapters.rmdir()
    assert clean_up(home, SMALLEST, publisher, store, log) == []


def test_a_folder_that_cannot_be_removed_is_told_and_keeps_no_other_from_going(
    home: Home, store: Store, publisher: Publisher, log: Logger
) -> None:
    stuck, other = night_files(home, "n0", 2, 2 * MIB), night_files(home, "n1", 1, 2 * MIB)
    with mounted(stuck / "disk", "size=64k"):
        aged(stuck, 2)
        clean_up(home, SMALLEST, publisher, store, log)
        assert not other.exists()
        (line,) = told(home, Event.DAEMON_ERROR)
        assert (line["where"], line["path"]) == ("clean-up", str(stuck))
        clean_up(home, SMALLEST, publisher, store, log)  # once more must do no harm either
        assert not stuck.exists()


def test_sizes_are_of_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"x" * 10)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 20)
    assert size_of(tmp_path) == 30


def test_free_space_and_memory_are_in_mib(tmp_path: Path) -> None:
    assert free_mb(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free / MIB, rel=0.05)
    # In a process of its own: one that was ever larger would take the ballast from what it kept.
    grown = "from daemon.resources import rss_mb; a = rss_mb(); b = bytearray(b'x') * (64 << 20); print(a, rss_mb() - a)"
    told = subprocess.run([sys.executable, "-c", grown], capture_output=True, text=True, check=True).stdout.split()
    assert 5 < float(told[0]) < 4000
    assert 55 < float(told[1]) < 75
