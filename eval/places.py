"""Where task sources find what they are made of."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Folders below one state directory."""

    root: Path

    @property
    def data(self) -> Path:
        """Benchmark files."""
        return self.root / "data"

    @property
    def mirrors(self) -> Path:
        """Bare mirrors of repositories."""
        return self.root / "mirrors"

    @property
    def environments(self) -> Path:
        """Python environments that repositories are tested in."""
        return self.root / "environments"

    @property
    def verified(self) -> Path:
        """Which tasks were seen to verify on this machine."""
        return self.root / "verified"

    @property
    def streams(self) -> Path:
        """Streams mined from repositories of the owner's own."""
        return self.root / "streams"


def key_of(repository: Path) -> str:
    """Under which name the mirror and the stream of a repository on this machine lie; no two have the same."""
    place = os.fsencode(repository.resolve())
    return f"{name_of(repository)}-{hashlib.sha256(place).hexdigest()[:8]}"


def name_of(repository: Path) -> str:
    """What a repository on this machine is called, after its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", repository.resolve().name).strip("-._") or "repository"
