"""`sleepyctl run` and `sleepyd`: everything of one daemon, wired together, from lock to last line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon.config import Config, load_config
from daemon.control import control
from daemon.errors import DaemonError
from daemon.events import Event
from daemon.home import Home, alone_in, owned
from daemon.inbox import take_in
from daemon.life import Life
from daemon.logs import Logger, bind_config, configure, reconfigure, shutdown
from daemon.notify import Notifier, watchdog_seconds
from daemon.serving import serving
from daemon.watch import Watcher
from memory.errors import StoreError
from memory.store import Store

TICK_SECONDS = 30
PACKAGE = "sleepy-agent"


def read_config(home: Home) -> Config:
    """The state directory's configuration, or the defaults if it has none."""
    return load_config(home.config if home.config.exists() else None)


def run(home: Home, quiet: bool = False) -> None:
    """Live on this state directory until a signal or `sleepyctl stop`.

    Raises:
        DaemonError: if another daemon owns the directory, or it or its configuration cannot be used.
        StoreError: if the store cannot be used.
    """
    home.make()
    with alone_in(home), owned(home.lock, "a daemon"):
        config = read_config(home)
        began = time.monotonic()
        log = configure(home.logs, config.log, None if quiet else sys.stderr, config.hash)
        try:
            log.info(Event.DAEMON_STARTING, pid=os.getpid(), version=version(PACKAGE), home=home.root)
            with Store(home.store) as store:
                asyncio.run(_live(home, config, store, log, began))
            log.info(Event.DAEMON_STOPPED, seconds=round(time.monotonic() - began, 1))
        except (DaemonError, StoreError) as error:
            log.error(Event.DAEMON_ERROR, where="daemon", error=str(error))
            raise
        except Exception as error:
            log.error(Event.DAEMON_ERROR, where="daemon", error=error)
            raise
        finally:
            shutdown()


async def _live(home: Home, config: Config, store: Store, log: Logger, began: float) -> None:
    life = Life(home, config, store, log, version(PACKAGE))
    manager = Notifier()
    _on_signals(life)
    async with serving(control(life), home.socket), _schedule(life), _watching(home, life, manager):
        life.log.info(Event.DAEMON_READY, seconds=round(time.monotonic() - began, 2))
        manager.ready()
        feeding = asyncio.create_task(_feed_watchdog(life, manager))
        try:
            await life.run()
        finally:
            manager.stopping()
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding


def _on_signals(life: Life) -> None:
    """Handlers that only leave a wish; the loop does the rest."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.ask_stop, signal.Signals(number).name)


@asynccontextmanager
async def _schedule(life: Life) -> AsyncIterator[None]:
    """The schedule's clock. Late ticks are made up for by one: what is due is computed from times, not from ticks."""
    scheduler = AsyncIOScheduler()
    scheduler.add_job(life.tick, "interval", seconds=TICK_SECONDS, misfire_grace_time=None, coalesce=True, max_instances=1)
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)


@asynccontextmanager
async def _watching(home: Home, life: Life, manager: Notifier) -> AsyncIterator[None]:
    seen = _text(home.config)

    async def look() -> None:
        nonlocal seen
        text = _text(home.config)
        if text != seen:
            seen = text
            manager.reloading()
            reload(home, life)
            manager.ready()
        await take_in(home, life)

    watcher = Watcher([home.root, home.inbox], look)
    watcher.start()
    watcher.look_now()
    try:
        yield
    finally:
        await watcher.stop()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def reload(home: Home, life: Life) -> None:
    """Take over a changed configuration file; an invalid one changes nothing but the status and the log."""
    try:
        if not home.config.exists():
            raise DaemonError(f"{home.config} is gone; what was read from it stays in force until the next start")
        config = read_config(home)
    except DaemonError as error:
        life.config_problem = str(error)
        life.log.error(Event.CONFIG_REJECTED, path=home.config, error=str(error))
        return
    changed = [name for name in Config.model_fields if getattr(config, name) != getattr(life.config, name)]
    life.use(config)
    bind_config(config.hash)
    reconfigure(config.log)
    life.log.info(Event.CONFIG_RELOADED, path=home.config, changed=changed)


async def _feed_watchdog(life: Life, manager: Notifier) -> None:
    """Tell the service manager that the loop still turns, and what it is doing."""
    seconds = watchdog_seconds()
    while seconds is not None:
        manager.status(f"{life.state}: {len(life.results)} tasks have ended")
        manager.watchdog()
        await asyncio.sleep(seconds)
