"""The skill: which adapter serves which repository. Everything it does not name gets the bare base, unless `*` is named.

Routing back to the base makes "no regression elsewhere" true by construction; the gate judges
the routed system as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TypeVar

from consolidation.adapters import AdapterStore
from consolidation.errors import AdapterError
from memory.files import write_whole
from memory.hashing import content_hash

LIVE = "live.json"
PREVIOUS = "previous.json"
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


class Publisher:
    """Keeps the live routing table in one file that is replaced atomically; remembers the one before.

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
        return self._read(LIVE)

    def previous(self) -> dict[str, str]:
        """What was live before; `rollback` returns to it."""
        return self._read(PREVIOUS)

    def routes(self, adapters: Mapping[str, str] | None = None) -> dict[str, Path]:
        """Repository to verified adapter folder, for the live table or a given one."""
        table = self.live() if adapters is None else adapters
        return {repo: self.adapters.get(identity).folder for repo, identity in table.items()}

    def make_live(self, adapters: Mapping[str, str]) -> None:
        """Put a routing table to work; every adapter's bytes are checked first. What is live already stays as it is."""
        routes = self.routes(adapters)
        if (self.folder / LIVE).exists() and self.live() == dict(adapters):
            return
        self._serve(routes)
        self._write(PREVIOUS, self.live())
        self._write(LIVE, adapters)

    def rollback(self) -> dict[str, str]:
        """Make the previous table live again (and the current one the previous: it can be undone)."""
        previous = self._read(PREVIOUS)
        self.make_live(previous)
        return previous

    def retire(self, adapters: Set[str], why: str) -> set[str]:
        """Take adapters out of service for good: neither live, nor what a rollback returns to. Those that are here no more
        are left out; returns the others."""
        known = {adapter.id for adapter in self.adapters.list()} & set(adapters)
        live = {repo: identity for repo, identity in self.live().items() if identity not in known}
        self.make_live(live)
        self._write(PREVIOUS, {repo: i for repo, i in self.previous().items() if i not in known})
        for identity in known:
            self.adapters.judge(identity, "rejected", why, barred=True)
        return known

    def _read(self, name: str) -> dict[str, str]:
        path = self.folder / name
        if not path.exists():
            return {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return {str(repo): str(identity) for repo, identity in data.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise AdapterError(f"{path}: not a routing table ({error}); delete it to serve the bare base") from error

    def _write(self, name: str, adapters: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / name, json.dumps(dict(adapters), sort_keys=True))
