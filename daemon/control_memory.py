"""The part of the control socket that is about knowledge."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query

from daemon.api import ForgetRequest, SearchRequest
from daemon.errors import DaemonError, RefusedError
from daemon.events import Event
from daemon.forgetting import Forgotten, forget
from daemon.life import Life
from daemon.memory_views import HandbookRow, MemoryDetail, MemoryStats, VersionRow, detail, handbooks, stats
from daemon.space import space_of
from daemon.states import State
from daemon.worker import Request
from memory.errors import RecordError
from memory.knowledge.shelf import Shelf


def add_memory(app: FastAPI, life: Life) -> None:
    """Add the paths below /memory."""

    def shelf() -> Shelf:
        return Shelf(life.store, space_of(life.config))

    async def aside(request: Request) -> dict[str, Any]:
        if not life.config.arm.recalls:
            raise RefusedError(f"the arm is {life.config.arm}, which has no knowledge; see `arm` in sleepyd.toml")
        reply = await life.worker.ask_aside(request)
        if reply.error:
            raise DaemonError(reply.error)
        return reply.done or {}

    @app.get("/memory")
    def memory_stats() -> MemoryStats:
        return stats(shelf())

    @app.get("/memory/versions")
    def versions() -> list[VersionRow]:
        return [VersionRow(version=str(version), at=at, why=why) for version, at, why in shelf().versions()]

    @app.get("/memory/handbook")
    def handbook(repo: Annotated[str, Query(max_length=200)] = "") -> list[HandbookRow]:
        return handbooks(shelf(), repo)

    @app.post("/memory/search")
    async def search(request: SearchRequest) -> list[dict[str, Any]]:
        asked = Request(do="search", config=life.config, query=request.query, repo=request.repo, count=request.most)
        done = await aside(asked)
        return list(done.get("found", []))

    @app.get("/memory/show/{identity}")
    def show(identity: str) -> MemoryDetail:
        try:
            return detail(shelf(), identity)
        except RecordError as error:
            raise RefusedError(str(error)) from error

    @app.post("/memory/rebuild")
    async def rebuild() -> dict[str, Any]:
        if life.worker.busy:
            raise RefusedError("it is working; `sleepyctl pause` first, and `sleepyctl resume` afterwards")
        return await aside(Request(do="rebuild", config=life.config))

    @app.post("/memory/forget")
    async def forgets(request: ForgetRequest) -> Forgotten:
        if life.state in (State.FALLING_ASLEEP, State.ASLEEP):
            raise RefusedError("a night is being held; `sleepyctl wake-now` breaks it off, or wait for its end")
        done = await asyncio.to_thread(forget, life.home, life.store, life.publisher, request.trajectory, request.retire)
        life.log.info(
            Event.KNOWLEDGE_FORGOTTEN,
            trajectory=done.trajectory,
            memories=done.memories,
            adapters=done.adapters,
            retired=done.retired,
        )
        if done.retired:
            life.ask_align()
        if life.config.arm.recalls:  # out of the index at once, not only when it is next asked
            try:
                await aside(Request(do="scrub", config=life.config))
            except DaemonError as error:  # it is forgotten all the same; the next recall brings the index in line
                life.log.error(Event.DAEMON_ERROR, where="forget", error=str(error))
        return done
