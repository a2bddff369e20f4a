"""What is live in Ollama: one alias for each scope, flipped from one published model to another, and back.

Ollama's copy writes the alias's manifest in place. So what is wanted is noted first, what came of it is read back from the
server, and a process that died in between is made good by the next one that looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from agent.errors import ModelError
from agent.models.ollama_server import OllamaServer, full_name
from agent.models.remote import Refused
from consolidation.errors import ConsolidationError
from consolidation.publishing import PublishError
from consolidation.publishing.desk import Desk, State, slug
from consolidation.publishing.routes import LEFT_OVER

LIVE = "sleepy-live"


class Aliases:
    """The aliases of one server; a scope without one is served by `base`."""

    def __init__(self, server: OllamaServer, base: str, desk: Desk) -> None:
        self.server, self.base, self.desk = server, base, desk

    def alias(self, scope: str) -> str:
        """The name that always leads to what is live for a scope, such as a repository."""
        return f"{LIVE}:{slug(scope)}"

    def live(self, scope: str) -> str:
        """The tag that is live for a scope; the base's name if none is.

        Raises:
            PublishError: a flip was broken off, and the server does not tell how it ended.
        """
        if scope in self.desk.load().wanted:
            with self._changing(f"what is live for {scope} is not known"):
                pass
        return self.desk.load().live.get(scope, self.base)

    def scopes(self) -> set[str]:
        """What has an alias that leads to an adapter."""
        return {scope for scope, tag in self.desk.load().live.items() if tag != self.base}

    def previous(self, scope: str) -> str:
        """What was live before it; `rollback` returns to it."""
        return self.desk.load().previous.get(scope, self.base)

    def make_live(self, scope: str, tag: str) -> None:
        """Flip the alias of a scope to a published tag, or to the base. What was live is remembered.

        Raises:
            PublishError: it is not what was published, or the server failed; what was live still is.
        """
        with self._changing(f"{tag} was not made live") as state:
            self._flip(state, scope, tag)

    def rollback(self, scope: str) -> str:
        """Make live what was live before, and return its tag; done twice, it undoes itself.

        Raises:
            PublishError: see `make_live`.
        """
        with self._changing(f"{scope} was not rolled back") as state:
            tag = state.previous.get(scope, self.base)
            self._flip(state, scope, tag)
            return tag

    def prune(self, keep: Collection[str] = ()) -> list[str]:
        """Delete what was published, or begun, and is neither live nor previous of any scope, nor to be kept; the deleted tags.

        Raises:
            PublishError: the server failed; what is left is deleted next time.
        """
        with self._changing("old models were not deleted") as state:
            used = {*state.live.values(), *state.previous.values(), *keep}
            there = self.server.digests()
            old = sorted({*state.published, *state.begun} - used)
            for tag in [*old, *(name for name in there if LEFT_OVER.match(name))]:
                if tag in there:
                    self._delete(tag)
                state.published.pop(tag, None)
                state.begun.discard(tag)
                self.desk.save(state)
            return old

    def _delete(self, tag: str) -> None:
        self.server.ask(lambda client: client.delete(tag))

    def _flip(self, state: State, scope: str, tag: str) -> None:
        there, alias = self.server.digests(), self.alias(scope)
        wanted, known = there.get(full_name(tag)), state.published.get(tag)
        if wanted is None and tag == self.base:
            raise PublishError(f"the base is not there; get it with `ollama pull {tag}`")
        if wanted is None or (tag != self.base and (known is None or known.digest != wanted)):
            raise PublishError(f"{tag} is not what was published; publish the adapter again")
        before = state.live.get(scope, self.base)
        if state.live.get(scope) == tag and there.get(alias) == wanted:
            return
        state.wanted[scope] = tag
        self.desk.save(state)
        try:
            self._point(alias, tag, wanted)
        except ModelError:
            old = there.get(full_name(before))
            with suppress(ModelError):  # half of the alias may be written
                if alias in there and old is not None:
                    self._point(alias, before, old)
                    self._settle(state)
            raise
        self._settle(state)

    def _point(self, alias: str, tag: str, wanted: str) -> None:
        self.server.ask(lambda client: client.copy(tag, alias), tag)
        if self.server.digests().get(alias) != wanted:
            raise Refused(f"{alias} does not lead to {tag} after Ollama copied it", 0)

    def _settle(self, state: State) -> None:
        """Note how flips ended: the server knows where the aliases lead."""
        there = self.server.digests()
        for scope, tag in list(state.wanted.items()):
            before, digest = state.live.get(scope, self.base), there.get(full_name(tag))
            if digest is not None and there.get(self.alias(scope)) == digest:
                if before != tag:
                    state.previous[scope] = before
                state.live[scope] = tag
            del state.wanted[scope]
        self.desk.save(state)

    @contextmanager
    def _changing(self, failed: str) -> Iterator[State]:
        """The state, held by this process alone. Whatever goes wrong inside is one PublishError."""
        try:
            with self.desk.held():
                state = self.desk.load()
                if state.wanted:
                    self._settle(state)
                yield state
        except (ModelError, ConsolidationError, OSError) as error:
            cause = error.__cause__ if isinstance(error, PublishError) and error.__cause__ else error
            raise PublishError(f"{failed}: {error}") from cause
