"""What the control socket answers: HTTP and JSON, typed, with an OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from consolidation.adapters import Adapter
from consolidation.errors import ConsolidationError
from daemon.api import (
    Accepted,
    AdapterRow,
    LiveTable,
    PinRequest,
    Problem,
    PromoteRequest,
    SleepAnswer,
    SleepRequest,
    Status,
)
from daemon.control_memory import add_memory
from daemon.errors import DaemonError, RefusedError
from daemon.events import Event
from daemon.life import Life
from daemon.metrics_view import Measured, measured
from daemon.night_view import NightShown, night_shown
from daemon.resources import pin
from daemon.space import roll_back, space_of
from daemon.states import State
from daemon.status import status_of
from daemon.views import (
    NightRow,
    TaskRow,
    TrajectoryRow,
    adapter_rows,
    night_rows,
    promoted_adapters,
    task_rows,
    trajectory_rows,
)
from daemon.worker import Request as WorkerRequest
from memory.errors import RecordError, StoreError
from memory.knowledge.shelf import Shelf
from memory.trajectories import Trajectory

Last = Annotated[int | None, Query(ge=1, le=1_000_000, description="Only the last so many.")]
REFUSALS: dict[int | str, dict[str, Any]] = {409: {"model": Problem}, 422: {"model": Problem}, 503: {"model": Problem}}


def control(life: Life) -> FastAPI:
    """The application; its OpenAPI document is at /openapi.json."""
    app = FastAPI(
        title="sleepyd",
        version=life.version,
        description="Control of the daemon that owns a state directory.",
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
    )

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        life.log.warning(Event.CONTROL_REFUSED, path=request.url.path, error=str(error))
        return JSONResponse({"error": str(error)}, 409)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"error": "; ".join(lines)}, 422)

    async def broken(request: Request, error: Exception) -> JSONResponse:
        life.log.error(Event.DAEMON_ERROR, path=request.url.path, error=str(error))
        return JSONResponse({"error": str(error)}, 503)

    for kind in (StoreError, ConsolidationError, DaemonError):
        app.add_exception_handler(kind, broken)

    @app.get("/status")
    async def status() -> Status:
        return status_of(life)

    @app.post("/sleep")
    async def sleep(request: SleepRequest) -> SleepAnswer:
        nights = status_of(life).nights
        if request.dry_run:
            if life.state in (State.FALLING_ASLEEP, State.ASLEEP):
                raise RefusedError("it is asleep; `sleepyctl nights show last` tells what the night has come to")
            plan = life.plan()
            trains = life.config.arm.adapts and life.config.model.weights is not None
            data = await _rehearsed(life) if plan.replayed and trains else None
            return SleepAnswer(accepted=False, plan=plan, nights=nights, data=data)
        if life.state is State.PAUSED:
            raise RefusedError("the daemon is paused; `sleepyctl resume` first")
        if life.state in (State.FALLING_ASLEEP, State.ASLEEP):
            raise RefusedError("it is asleep already")
        plan = life.ask_sleep("asked for by the owner")
        return SleepAnswer(accepted=plan.would_sleep, plan=plan, nights=nights)

    @app.post("/wake")
    async def wake() -> Accepted:
        if not life.ask_wake():
            raise RefusedError(f"it is not asleep but {life.state}, and no night is open")
        return Accepted(what="the night is broken off; nothing more of it is put to work")

    @app.post("/pause")
    async def pause() -> Accepted:
        life.ask_pause(True)
        return Accepted(what="it finishes the tasks in hand and takes no more until `sleepyctl resume`")

    @app.post("/resume")
    async def resume() -> Accepted:
        life.ask_pause(False)
        return Accepted(what="it goes on")

    @app.post("/stop")
    async def stop() -> Accepted:
        life.ask_stop("asked for by the owner")
        return Accepted(what=f"it stops within {life.config.life.grace_seconds:g} s; nothing is lost")

    @app.get("/tasks")
    async def tasks(last: Last = None) -> list[TaskRow]:
        return task_rows(life.store, last)

    @app.get("/trajectories")
    async def trajectories(last: Annotated[int, Query(ge=1, le=10_000)] = 20) -> list[TrajectoryRow]:
        return trajectory_rows(life.store, last)

    @app.get("/trajectories/{identity}")
    async def trajectory(identity: str) -> Trajectory:
        try:
            return life.store.trajectory(identity)
        except RecordError as error:
            raise RefusedError(str(error)) from error

    @app.get("/nights/{which}")
    def night(which: str) -> NightShown:
        found = night_shown(life.store, which)
        if found is None:
            raise RefusedError(f"no night {which!r}; `sleepyctl nights` lists them")
        return found

    @app.get("/nights")
    async def nights(last: Last = None) -> list[NightRow]:
        return night_rows(life.store, last)

    @app.get("/metrics")
    def metrics() -> Measured:
        return measured(life.store, life.config)

    @app.get("/adapters")
    async def adapters() -> list[AdapterRow]:
        return adapter_rows(life.home, life.store)

    @app.get("/adapters/{adapter}")
    async def adapter(adapter: str) -> Adapter:
        _known(life, adapter)
        return life.publisher.adapters.get(adapter)

    @app.post("/adapters/promote")
    async def promote(request: PromoteRequest) -> LiveTable:
        _awake(life)
        _known(life, request.adapter)
        found = life.publisher.adapters.get(request.adapter)
        if found.standing.barred:
            raise RefusedError(f"{request.adapter} was taken out of service: {found.standing.why}")
        if request.adapter not in promoted_adapters(life.store):
            raise RefusedError(f"{request.adapter} never passed the gate; only what was guarded can be put to work")
        if found.standing.state == "rejected":
            raise RefusedError(f"{request.adapter} was rejected since: {found.standing.why}")
        scope = found.manifest.scope
        life.publisher.make_live({**life.publisher.live(), **dict.fromkeys(scope, request.adapter)})
        life.ask_align()
        life.log.info(Event.ADAPTER_PROMOTED, adapter=request.adapter, by="owner")
        return LiveTable(live=life.publisher.live())

    @app.post("/adapters/rollback")
    async def rollback() -> LiveTable:
        _awake(life)
        before = life.publisher.live()
        live = life.publisher.rollback()
        life.ask_align()
        life.log.info(Event.ADAPTER_ROLLED_BACK, live=live)
        knowledge = roll_back(life.store, Shelf(life.store, space_of(life.config)), before, live)
        if knowledge is not None:
            life.log.info(Event.KNOWLEDGE_ROLLED_BACK, version=str(knowledge))
        return LiveTable(live=live, knowledge=str(knowledge or ""))

    @app.post("/adapters/pin")
    async def keep(request: PinRequest) -> Accepted:
        _known(life, request.adapter)
        pin(life.store, request.adapter, request.keep)
        return Accepted(what=f"{request.adapter} is {'kept for ever' if request.keep else 'kept as long as there is room'}")

    add_memory(app, life)
    return app


def _awake(life: Life) -> None:
    """What is live is not changed under a night that is judged against it, also while that night waits to go on."""
    if life.state in (State.FALLING_ASLEEP, State.ASLEEP):
        raise RefusedError("a night is being held; `sleepyctl wake-now` breaks it off, or wait for its end")
    if life.store.open_night_now() is not None:
        raise RefusedError("a night is open and waits to go on; `sleepyctl wake-now` closes it, or wait for its end")


def _known(life: Life, adapter: str) -> None:
    if adapter not in {row.id for row in adapter_rows(life.home, life.store)}:
        raise RefusedError(f"no adapter {adapter!r}; `sleepyctl adapters list` shows what there is")


async def _rehearsed(life: Life) -> dict[str, Any]:
    """What a night would train on, told by the worker as soon as it has time."""
    reply = await life.worker.ask_aside(WorkerRequest(do="rehearse", config=life.config))
    if reply.stopped:
        raise RefusedError("the daemon is stopping; ask the next one")
    if reply.error:
        raise DaemonError(reply.error)
    return reply.done or {}
