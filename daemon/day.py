"""The day: the next batch of tasks, and what happens when there is none."""

from __future__ import annotations

import asyncio

from daemon.api import Doing
from daemon.body import Body
from daemon.events import Event
from daemon.plan import own_tasks
from daemon.worker import Request
from eval.errors import EvalError
from eval.sources import open_source


async def play(body: Body) -> bool:
    """The next batch of tasks; False if there is none."""
    config = body.config
    over = {result.task_id for result in body.results}
    try:
        if not own_tasks(body.store, body.home, over) and not open_source(config.tasks, body.home.places).next(over, 1):
            return False
    except EvalError as error:  # what the stream is made of is not there, or damaged
        body.patience.failed(str(error))
        return True
    count = config.day.batch
    if config.sleep.after_tasks:
        count = min(count, max(1, config.sleep.after_tasks - body.counted))
    reply = await body.ask(Request(do="play", config=config, count=count))
    body.doing = Doing()
    body.results += body.store.results(since=len(body.results))
    if reply is None or reply.stopped:
        return True
    if reply.error:
        body.patience.failed(f"{reply.kind}: {reply.error}")
        return True
    done = reply.done or {}
    if done.get("taken") and done.get("failed") == done.get("taken"):
        body.patience.failed("every attempt of the batch failed for reasons that are not the agent's; see the log")
    elif done.get("taken"):
        held = done.get("held", 0)
        body.patience.worked()
        waiting = f"{held} tasks of the inbox wait for a sandbox that confines: install bubblewrap" if held else ""
        body.patience.holding = waiting
        body.log.info(Event.DAY_BATCH, **done)
    return bool(done.get("taken"))


async def rest(body: Body) -> None:
    """Nothing to do: wait; after a while the model leaves memory, or a night is held."""
    loop = asyncio.get_running_loop()
    body.idle_since = body.idle_since or loop.time()
    body.patience.holding = body.holding or "every task has ended"
    while not body.poked.is_set():
        idle = loop.time() - body.idle_since
        unload = body.config.model.unload_after_minutes * 60
        sleep = body.config.sleep.when_idle_minutes * 60
        if sleep and idle >= sleep and body.counted > 0:
            body.night_is_due(f"idle for {body.config.sleep.when_idle_minutes:g} minutes")
            break
        if idle >= unload and body.worker.pid is not None:
            body.log.info(Event.WORKER_IDLE, minutes=body.config.model.unload_after_minutes)
            await body.worker.close()
        pending = [t - idle for t in (unload if body.worker.pid else 0, sleep) if t > idle]
        await body.wait(min(pending) if pending else None)
    body.patience.holding = ""
