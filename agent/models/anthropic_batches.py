"""Claude through the Message Batches API: a night's requests at half the price, and none of them paid twice.

What was sent is noted before it is sent, with the most it can cost. A process that was killed meanwhile finds its batch
again, by its id or, where it died before it knew that, by its time, its size and the ids of its requests.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from agent.errors import ModelError, ModelUnavailable
from agent.model import Completion, Message, Sampling
from agent.models.anthropic_model import OVERHEAD_TOKENS, AnthropicModel, Reply, _completion
from agent.models.batch_ledger import Ledger, Notes, Sent
from agent.models.payloads import CACHED
from agent.models.purse import Purse
from agent.models.remote import Passing, Refused, Text, clean, decode, persist
from memory.hashing import content_hash

HALF = 0.5
"""Of the price of standard requests, for everything in a batch."""
TRIES = 2
MOST_BATCHES = 4
"""That are sent one after the other: what the first did not cost of its worst, pays for more."""
MOST_REQUESTS = 10_000
ABSENT = frozenset({404, 405, 501})
"""How a server that has no batches answers."""
BUSY = ("429", "529")
SKEW = timedelta(hours=1)
"""By which its clock and ours may differ, and for which it may have been tried to send a batch."""
PATH = "/v1/messages/batches"


class _Counts(BaseModel):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class _Batch(BaseModel):
    id: str = Field(min_length=1)
    processing_status: Literal["in_progress", "canceling", "ended"]
    created_at: datetime
    request_counts: _Counts


class _Page(BaseModel):
    data: list[_Batch]


class _Fault(BaseModel):
    type: Text = ""


class _Error(BaseModel):
    type: Text = ""
    error: _Fault | None = None


class _Result(BaseModel):
    type: Literal["succeeded", "errored", "canceled", "expired"]
    message: Reply | None = None
    error: _Error | None = None


class _Line(BaseModel):
    custom_id: str
    result: _Result


BATCH, PAGE, LINE = TypeAdapter(_Batch), TypeAdapter(_Page), TypeAdapter(_Line)


class AnthropicBatches(AnthropicModel):
    """A Claude model whose conversations go as one batch, for at most `budget_usd` dollars in an `account`.

    The account is kept in `notes`, so that the budget holds across processes. Only the system prompt is marked for the
    prompt cache, which requests of a batch share as they happen to meet. A request that the server failed at, or did
    not come to in time, is sent once more; `problems` counts those that have no answer, which then is empty.
    `batched` is false where `synchronous` is set or the server has no batches: then each is asked by itself, at the full
    price. `pause` waits (seconds) between two looks at a batch; what it raises cancels the batch. Other settings are
    those of `AnthropicModel`.
    """

    def __init__(
        self,
        name: str,
        budget_usd: float,
        notes: Notes,
        account: str = "",
        *,
        synchronous: bool = False,
        poll_seconds: float = 30.0,
        wait_seconds: float = 6 * 3600.0,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **settings: Any,
    ) -> None:
        super().__init__(name, budget_usd, native=False, **settings)
        self._ledger = Ledger(notes, account)
        self._poll_seconds, self._wait_seconds, self._pause, self._now = poll_seconds, wait_seconds, pause, now
        self._batched: bool | None = False if synchronous else None
        self.problems: Counter[str] = Counter()

    @property
    def batched(self) -> bool:
        """Whether the server takes batches; it is asked once.

        Raises:
            ModelUnavailable, ModelError: it cannot be asked.
        """
        if self._batched is None:
            try:
                self._get(PATH, {"limit": 1})
                self._batched = True
            except Refused as error:
                if error.status not in ABSENT:
                    raise
                self._batched = False
        return self._batched

    @property
    def fingerprint(self) -> str:
        """Hash of URL, model and options as they are named here: what was made with it is found without asking the server."""
        return content_hash([self._where, self._model, self._options, "batches"])

    @property
    def spent_usd(self) -> float:
        """Dollars spent from the account; what is not known yet counts with the most that it can be."""
        return self._ledger.dollars

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; an answer that cannot be had is empty, and counted in `problems`.

        Raises:
            ModelUnavailable: the server stays away, or its batch is not ready in time; it is looked for the next time.
            ModelError: it refuses.
        """
        bodies = [self._body(messages, sampling.max_tokens) for messages in conversations]
        names = [content_hash([self._where, body])[:48] for body in bodies]
        if not self.batched:
            return [self._directly(*one, sampling) for one in zip(names, bodies, conversations, strict=True)]
        answers = self._answers(dict(zip(names, bodies, strict=True)))
        return [
            _completion(answers[name], 0.0) if name in answers else Completion("", 0, 0, finish_reason="stop") for name in names
        ]

    def _body(self, messages: Sequence[Message], max_tokens: int) -> dict[str, Any]:
        system = "\n\n".join(clean(m.content) for m in messages if m.role == "system")
        talk: list[dict[str, Any]] = []
        for message in messages:
            if message.role == "system":
                continue
            role = "assistant" if message.role == "assistant" else "user"
            if not talk or talk[-1]["role"] != role:
                talk.append({"role": role, "content": []})
            talk[-1]["content"].append({"type": "text", "text": clean(message.content) or "(empty)"})
        body = {"model": self._model, "max_tokens": max_tokens + self._thinking, "messages": talk}
        if system:
            body["system"] = [{"type": "text", "text": system, **CACHED}]
        return body | self._options

    def _worst(self, body: Mapping[str, Any]) -> float:
        """Dollars of a standard request; no token is less than a byte."""
        blocks = [*body.get("system", []), *(block for turn in body["messages"] for block in turn["content"])]
        size = sum(len(block["text"].encode()) + OVERHEAD_TOKENS for block in blocks)
        return self._price.at_most(size, int(body["max_tokens"]))

    def _directly(self, name: str, body: Mapping[str, Any], messages: Sequence[Message], sampling: Sampling) -> Completion:
        # Every attempt at a call whose answer was lost may have to be paid for.
        sent, before = Sent(id="direct", at=self._now(), worst={name: self._worst(body)}), self.spent_usd
        if before + sent.dollars > self._purse.limit:
            self.problems["over_budget"] += 1
            return Completion("", 0, 0)
        self._purse = Purse(self._purse.limit, before)
        self._ledger.add(sent)
        try:
            answer = super().complete([messages], sampling)[0]
        finally:
            self._ledger.settle(sent, self._purse.spent - before)
        return answer

    def _answers(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Reply]:
        answers: dict[str, Reply] = {}
        why: dict[str, str] = {}
        tried: Counter[str] = Counter()
        for sent in self._ledger.sent:
            if sent.id != "direct" and bodies.keys() & sent.worst.keys():
                self._collect(sent, answers, why, tried)
        for _ in range(MOST_BATCHES):
            open_ = [name for name in bodies if name not in answers and tried[name] < TRIES and why.get(name) != "refused"]
            lacking = {name: bodies[name] for name in open_}
            if not lacking or (posted := self._send(lacking)) is None:
                break
            self._collect(posted, answers, why, tried)
            if not any(n in posted.worst and (n in answers or tried[n]) for n in lacking):
                break
        for name in bodies.keys() - answers.keys():
            self.problems[why.get(name, "over_budget")] += 1
        return answers

    def _send(self, bodies: Mapping[str, dict[str, Any]]) -> Sent | None:
        """Send as many as the budget allows, in order; None if that is none."""
        room = self._purse.limit - self.spent_usd
        worst: dict[str, float] = {}
        for name, body in list(bodies.items())[:MOST_REQUESTS]:
            if (cost := HALF * self._worst(body)) > room:
                break
            worst[name], room = cost, room - cost
        if not worst:
            return None
        sent = Sent(at=self._now(), worst=worst)
        self._ledger.add(sent)
        requests: Any = [{"custom_id": name, "params": bodies[name]} for name in worst]
        create = self._client.messages.batches.with_raw_response.create
        lost = False

        def attempt() -> str:
            nonlocal lost
            if lost and (there := self._orphan(sent)):
                return there
            try:
                return decode(BATCH, self._once(lambda: create(requests=requests, timeout=self._timeout)), self._where).id
            except Passing as error:  # but for "leave me alone", it may have arrived
                lost = lost or not str(error).startswith(BUSY)
                raise

        try:
            identity = persist(attempt, self._where, self._patience)
        except (Refused, ModelUnavailable):
            if not lost:
                self._ledger.drop(sent)
            raise
        return self._ledger.named(sent, identity)

    def _collect(self, sent: Sent, answers: dict[str, Reply], why: dict[str, str], tried: Counter[str]) -> None:
        """Wait for a batch, and read its results."""
        if not sent.id:
            if not (identity := self._orphan(sent)):  # it never arrived
                self._ledger.drop(sent)
                return
            sent = self._ledger.named(sent, identity)
        lines = self._results(sent.id)
        cost = 0.0
        for name, worst in sent.worst.items():
            result = lines.get(name)
            if result is None or (result.type == "succeeded" and result.message is None):
                cost, why[name] = cost + worst, "malformed"  # it may have to be paid for
            elif result.message is not None and result.type == "succeeded":
                cost += HALF * self._price.of(result.message.usage)
                if result.message.stop_reason == "refusal":
                    why[name] = "refused"
                else:
                    answers[name] = result.message
            elif result.type == "errored" and result.error and result.error.error:
                why[name] = "refused" if result.error.error.type == "invalid_request_error" else "errored"
            else:
                why[name] = result.type
            tried[name] += why.get(name) != "canceled"
        self._ledger.settle(sent, cost)

    def _results(self, identity: str) -> dict[str, _Result]:
        """The results of a batch by request, once it has ended; those that can be read. None of a batch that is gone."""
        try:
            self._wait(identity)
            text = self._get(f"{PATH}/{quote(identity, safe='')}/results")
        except Refused as error:
            if error.status != 404:
                raise
            return {}
        found: dict[str, _Result] = {}
        for line in text.split("\n"):
            with contextlib.suppress(ValueError, RecursionError, ValidationError):
                told = LINE.validate_python(json.loads(line))
                found.setdefault(told.custom_id, told.result)
        return found

    def _wait(self, identity: str) -> None:
        waited = 0.0
        while (
            batch := decode(BATCH, self._get(f"{PATH}/{quote(identity, safe='')}"), self._where)
        ).processing_status != "ended":
            if waited >= self._wait_seconds:
                raise ModelUnavailable(
                    f"{self._where} has not finished batch {identity} ({batch.request_counts.processing} of "
                    f"{batch.request_counts.total} to do); it is asked for again later, and nothing is paid twice"
                )
            try:
                self._pause(self._poll_seconds)
            except BaseException:
                with contextlib.suppress(ModelError, Passing):
                    self._once(lambda: self._client.messages.batches.with_raw_response.cancel(identity))
                raise
            waited += self._poll_seconds

    def _orphan(self, sent: Sent) -> str:
        """The batch that was sent before its id was known, or nothing."""
        known = {one.id for one in self._ledger.sent}
        for batch in decode(PAGE, self._get(PATH, {"limit": 100}), self._where).data:
            created = batch.created_at if batch.created_at.tzinfo else batch.created_at.replace(tzinfo=UTC)
            alike = batch.request_counts.total == len(sent.worst) and abs(created - sent.at) <= SKEW
            if alike and batch.id not in known and self._results(batch.id).keys() & sent.worst.keys():
                return batch.id
        return ""

    def _get(self, path: str, query: Mapping[str, object] | None = None) -> str:
        options: Any = {"params": dict(query or {}), "timeout": self._timeout}

        def whole() -> SimpleNamespace:
            text = self._client.get(path, cast_to=str, options=options)
            return SimpleNamespace(http_response=SimpleNamespace(text=text))

        return persist(lambda: self._once(whole), self._where, self._patience)
