"""The night, as the daemon sees it: begun or taken up again, given up after too many crashes, closed with a verdict."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from consolidation.skill import skill_id
from daemon.api import Doing
from daemon.body import Body
from daemon.config import Config
from daemon.events import Event
from daemon.states import State
from daemon.worker import Reply, Request
from memory.nights import Night, Verdict
from memory.store import Store

NIGHT_CONFIG = "night.config"
RETRIABLE, AWAY = ("TrainingCrashed",), "ModelUnavailable"


class Sleeping:
    """Holds nights, and remembers how often they crashed."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._crashes: dict[str, int] = {}

    async def sleep(self, night: Night | None) -> None:
        """Hold a night, or the rest of an open one."""
        body = self._body
        why = body.wishes.sleep or "a night was broken off"
        if not self._fall_asleep(night, why):
            return
        body.wishes.sleep, body.deferred = "", ""
        body.enter(State.ASLEEP, why)
        before = [night.id for night in body.store.nights() if night.ended_at is not None]
        reply = await body.ask(Request(do="night", config=self._config()))
        progress, body.doing = body.doing, Doing()
        woken, body.wishes.wake = body.wishes.wake, False
        self._settle(reply, progress, woken)
        if reply is not None and reply.stopped and not woken:  # it goes on later, or at once if that was taken back
            if body.store.open_night_now() is None:
                body.wishes.sleep = why  # it had not begun
            if not (body.wishes.paused or body.wishes.stop):
                body.enter(State.WAKING)
            return
        body.enter(State.WAKING)
        nights = body.store.nights()
        if nights and nights[-1].ended_at is not None and nights[-1].id not in before:
            self._tell_closed(nights[-1])

    def close_waiting(self) -> bool:
        """Close a night that is open while nobody sleeps: it is paused, or waits after a failure. False if there is none."""
        night = self._body.store.open_night_now()
        if night is None:
            return False
        self._body.wishes.sleep = ""
        self._tell_closed(self._close(night, "woken by the owner"))
        self._body.poke()
        return True

    def _tell_closed(self, night: Night) -> None:
        verdict = night.verdict
        promoted, why = (verdict.promoted, verdict.why) if verdict is not None else (False, night.error)
        self._body.log.info(Event.NIGHT_CLOSED, night=night.id, promoted=promoted, why=why)
        self._body.clean_up()

    def _fall_asleep(self, night: Night | None, why: str) -> bool:
        """False if a new night is put off after all."""
        body = self._body
        if night is None:
            plan = body.plan()
            if not plan.would_sleep:
                body.wishes.sleep = ""
                body.defer(plan.why)
                return False
            body.enter(State.FALLING_ASLEEP, why)
            body.store.set_note(NIGHT_CONFIG, body.config.model_dump_json())
        else:
            body.enter(State.FALLING_ASLEEP, why)
            steps = [name for name, _ in body.store.steps_of_night(night.id)]
            body.log.info(Event.NIGHT_RESUMED, night=night.id, steps=steps)
        return True

    def _settle(self, reply: Reply | None, progress: Doing, woken: bool) -> None:
        """What becomes of a night that did not end by itself."""
        if woken:
            self._abandon("woken by the owner")
        elif reply is None:
            self._crashed(progress, "the worker died")
        elif reply.kind in RETRIABLE:
            self._body.patience.failed(reply.error)
            self._crashed(progress, reply.error)
        elif reply.kind == AWAY:  # the night goes on when the server is back
            self._body.patience.failed(reply.error)
        elif reply.error:
            self._abandon(f"{reply.kind}: {reply.error}")

    def _crashed(self, progress: Doing, why: str) -> None:
        body = self._body
        night = body.store.open_night_now()
        if night is None or body.wishes.stop:
            return
        key = f"{night.id}/{len(body.store.steps_of_night(night.id))}"
        self._crashes[key] = self._crashes.get(key, 0) + 1
        if self._crashes[key] >= body.config.life.crashes:
            cap = f" (resources.training_memory_mb is {body.config.resources.training_memory_mb})" if "memory" in why else ""
            self._abandon(f"{self._crashes[key]} crashes at step {progress.step or 'pairs'}: {why}{cap}")

    def _abandon(self, why: str) -> None:
        """Close the open night, if its worker has not."""
        night = self._body.store.open_night_now()
        if night is not None:
            self._close(night, why)

    def _close(self, night: Night, why: str) -> Night:
        body = self._body
        closed = close_broken(body.store, night, why, body.now())
        if closed.adapter is None:
            body.log.error(Event.NIGHT_FAILED, night=night.id, error=why)
        else:
            body.log.warning(Event.DAEMON_ERROR, where="night", night=night.id, error=f"after it had published: {why}")
        return closed

    def _config(self) -> Config:
        """The configuration a night was begun with holds until its end."""
        text = self._body.store.note(NIGHT_CONFIG)
        try:
            return Config.model_validate_json(text) if text else self._body.config
        except ValidationError:  # another version's: the night ends without a verdict, because its configuration changed
            return self._body.config


def close_broken(store: Store, night: Night, why: str, at: datetime) -> Night:
    """Close a night that broke off. What the gate decided stays, and what was put to work; what it let pass but nothing put to
    work was not promoted."""
    verdict, update = Verdict(promoted=False, why=f"the night broke off: {why}"), {"ended_at": at, "error": why[:500]}
    published, judged = store.step_result(night.id, "publish"), store.step_result(night.id, "guards")
    decided = Verdict.model_validate(judged["verdict"]) if judged is not None else None
    if decided is not None and (published is not None or not decided.promoted):
        verdict = decided
    if published is not None:
        update |= {"adapter": skill_id(published["live"])}
    closed = night.model_copy(update=update | {"verdict": verdict})
    store.close_night(closed)
    return closed
