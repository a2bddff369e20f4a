"""The skill: which adapter serves which repository. Everything it does not name gets the bare base, unless `*` is named.

Routing back to the base makes "no regression elsewhere" true by construction; the gate judges
the routed system as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from consolidation.adapters import AdapterStore
from consolidation.errors import AdapterError
from memory.files import write_whole
from memory.hashing import content_hash

LIVE = "live.json"
PREVIOUS = "previous.json"
"""Only in folders of before; there `LIVE` holds nothing but what is live."""
ALL = "*"
"""In a routing table: every repository that it does not name."""
Named = TypeVar("Named", str, Path)
"""An adapter, by its id or its folder."""


def adapter_for(routes: Mapping[str, Named], repo: str) -> Named | None:
    """What a routing table has for a repository: its own adapter, else that for `ALL`, else None for the bare base."""
    return routes.get(repo, routes.get(ALL))


def skill_id(adapters: Mapping[str, str]) -> str:
    """Content hash of a routing table (repository to adapter id)."""
    return content_hash(dict(adapters))


class _Tables(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    live: dict[str, str]
    previous: dict[str, str]


_FILE: TypeAdapter[_Tables | dict[str, str]] = TypeAdapter(_Tables | dict[str, str])


class Publisher:
    """Keeps what is live and what was live before in one file, replaced by one rename: after a kill it holds both tables
    of before, or both of after.

    `serve` has a server serve the new table before it counts as live; if it fails, nothing is live that was not.
    """

    def __init__(
        self, folder: Path, adapters: AdapterStore, serve: Callable[[Mapping[str, Path]], None] = lambda routes: None
    ) -> None:
        self.folder = folder
        self.adapters = adapters
        self._serve = serve

    def live(self) -> dict[str, str]:
        """Repository to adapter id of what is live; empty for the bare base."""
        found = self._read(LIVE)
        return found.live if isinstance(found, _Tables) else found

    def previous(self) -> dict[str, str]:
        """What was live before; `rollback` returns to it."""
        found = self._read(LIVE)
        if isinstance(found, _Tables):
            return found.previous
        before = self._read(PREVIOUS)
        return before.previous if isinstance(before, _Tables) else before

    def routes(self, adapters: Mapping[str, str] | None = None) -> dict[str, Path]:
        """Repository to verified adapter folder, for the live table or a given one."""
        table = self.live() if adapters is None else adapters
        return {repo: self.adapters.get(identity).folder for repo, identity in table.items()}

    def fitting(self, table: Mapping[str, str], base: str) -> dict[str, str]:
        """Those entries of a table whose adapter was trained on this base (a hash), or on one that is not known. On other
        weights an adapter was never guarded, even where its shapes fit.

        Raises:
            AdapterError: an adapter is missing or damaged.
        """
        return {repo: i for repo, i in table.items() if self.adapters.get(i).manifest.base in ("", base)}

    def make_live(self, adapters: Mapping[str, str]) -> None:
        """Put a routing table to work; every adapter's bytes are checked first. What is live already stays as it is.

        Raises:
            AdapterError: an adapter is missing, damaged, or was taken out of service for good; nothing changes.
        """
        found, live = {repo: self.adapters.get(identity) for repo, identity in adapters.items()}, self.live()
        for repo, one in found.items():
            if one.standing.barred and live.get(repo) != one.id:
                raise AdapterError(f"adapter {one.id} was taken out of service for good ({one.standing.why}); choose another")
        if (self.folder / LIVE).exists() and live == dict(adapters):
            return
        self._serve({repo: one.folder for repo, one in found.items()})
        self._write(adapters, live)

    def rollback(self) -> dict[str, str]:
        """Make the previous table live again (and the current one the previous: it can be undone)."""
        previous = self.previous()
        self.make_live(previous)
        return previous

    def retire(self, adapters: Set[str], why: str) -> set[str]:
        """Take adapters out of service for good: neither live, nor what a rollback returns to. Those that are here no more
        are left out; returns the others."""
        known = {adapter.id for adapter in self.adapters.list()} & set(adapters)
        live, previous = self.live(), self.previous()
        kept = {repo: identity for repo, identity in live.items() if identity not in known}
        before = {repo: identity for repo, identity in previous.items() if identity not in known}
        if kept != live:
            self._serve(self.routes(kept))
        if (kept, before) != (live, previous):
            self._write(kept, before)
        for identity in known:
            self.adapters.judge(identity, "rejected", why, barred=True)
        return known

    def _read(self, name: str) -> _Tables | dict[str, str]:
        path = self.folder / name
        try:
            return _FILE.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise AdapterError(f"{path}: not a routing table ({why}); delete it to serve the bare base") from error

    def _write(self, live: Mapping[str, str], previous: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / LIVE, _Tables(live=dict(live), previous=dict(previous)).model_dump_json())
        (self.folder / PREVIOUS).unlink(missing_ok=True)  # of no use any more
