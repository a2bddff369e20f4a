"""sd_notify against real datagram sockets."""

from __future__ import annotations

import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.notify import Notifier, watchdog_seconds


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's ear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.settimeout(2)
        yield ear


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have 104 bytes, and pytest's own folders can be longer."""
    with tempfile.TemporaryDirectory(prefix="ear-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def ear(folder: Path) -> Iterator[socket.socket]:
    with manager(str(folder / "notify")) as ear:
        yield ear


@pytest.fixture
def notifier(ear: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": ear.getsockname()})


def heard(ear: socket.socket) -> list[str]:
    return ear.recv(4096).decode().split("\n")


def test_every_message_arrives_as_systemd_reads_it(ear: socket.socket, notifier: Notifier) -> None:
    assert notifier.listened_to
    assert notifier.ready()
    assert heard(ear) == ["READY=1"]
    assert notifier.ready("awake")
    assert heard(ear) == ["READY=1", "STATUS=awake"]
    assert notifier.status("asleep, step 3 of 9")
    assert heard(ear) == ["STATUS=asleep, step 3 of 9"]
    assert notifier.watchdog()
    assert heard(ear) == ["WATCHDOG=1"]
    assert notifier.extend_timeout(1.5)
    assert heard(ear) == ["EXTEND_TIMEOUT_USEC=1500000"]
    assert notifier.stopping("SIGTERM")
    assert heard(ear) == ["STOPPING=1", "STATUS=SIGTERM"]
    assert notifier.stopping()
    assert heard(ear) == ["STOPPING=1"]


def test_reloading_carries_the_time_of_the_monotonic_clock(ear: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = heard(ear)
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert before <= int(second.partition("=")[2]) <= after


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="abstract sockets are Linux's")  # noqa: PTH110
def test_abstract_sockets_are_reached() -> None:
    name = f"sleepy-{uuid.uuid4().hex}"
    with manager(f"\0{name}") as ear:
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert heard(ear) == ["READY=1"]


def test_a_status_cannot_smuggle_in_another_message(ear: socket.socket, notifier: Notifier) -> None:
    assert notifier.status("working\nSTOPPING=1\r\nMAINPID=1\x0bERRNO=1")
    assert heard(ear) == ["STATUS=working STOPPING=1 MAINPID=1 ERRNO=1"]


def test_text_that_is_no_utf8_is_sent_all_the_same(ear: socket.socket, notifier: Notifier) -> None:
    assert notifier.status("caf\u00e9 \udcff")
    assert heard(ear) == ["STATUS=caf\u00e9 ?"]


@pytest.mark.parametrize("address", [None, "", "/", "@", "relative", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})
    assert not notifier.listened_to
    assert not notifier.ready("awake")
    assert not notifier.watchdog()


def test_a_manager_that_is_gone_does_not_matter(folder: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(folder / "gone")}).ready()
    with manager(str(folder / "left")):
        pass
    assert not Notifier({"NOTIFY_SOCKET": str(folder / "left")}).watchdog()
    assert not Notifier({"NOTIFY_SOCKET": f"/{'long/' * 50}"}).ready()


def test_a_manager_that_does_not_read_does_not_block_for_long(ear: socket.socket, notifier: Notifier) -> None:
    began = time.monotonic()
    while notifier.watchdog():
        assert time.monotonic() - began < 10, "the queue never filled, so nothing was shown"
    assert time.monotonic() - began < 5


def test_the_watchdog_is_fed_twice_per_interval() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 15
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77"}, pid=77) == 1.5


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "\u00b2"},
        {"WATCHDOG_PID": str(os.getpid())},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_for_this_process(environ: dict[str, str]) -> None:
    assert watchdog_seconds(environ) is None
