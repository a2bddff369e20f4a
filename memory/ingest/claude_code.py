"""Reader "claude-code/1": sessions of Claude Code, one JSON object a line.

Lines of type `user` and `assistant` hold messages of Anthropic's API; one answer can be several lines, one block each.
Left out, and counted: side chains (subagents), meta lines, summaries, every other type. Rewound branches stay, in the
file's order. There is no published schema; this reads what versions 1 and 2 write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO, Any

from memory.ingest.sessions import Session, SessionError, Skipped, Turn, entries, moment, name, parsed, plain, table

READER = "claude-code/1"
LONGEST_LINE = 16 << 20
"""Bytes of one line; images can make them long."""
_META = ("isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "isApiErrorMessage")
_COMMAND = re.compile(r"\s*<(?:command-(?:name|message|args)|local-command-(?:stdout|stderr|caveat)|bash-(?:input|std))")


def is_line(value: object) -> bool:
    """Whether a parsed line is one of Claude Code's."""
    line = table(value)
    known = ("sessionId", "uuid", "leafUuid", "messageId", "parentUuid")
    return isinstance(line.get("type"), str) and any(key in line for key in known) and "config_hash" not in line


def read(file: IO[bytes], skipped: Skipped) -> list[Session]:
    """The sessions of a file, in the order in which they begin. Lines that cannot be read are counted, and passed over."""
    tellers: dict[str, _Teller] = {}
    for number, raw in enumerate(_lines(file), start=1):
        if not raw.strip():
            continue
        try:
            if len(raw) > LONGEST_LINE:
                raise SessionError(f"longer than {LONGEST_LINE >> 20} MiB")
            line = parsed(raw)
            if not is_line(line):
                raise SessionError("no line of a Claude Code session")
            if line["type"] not in ("user", "assistant"):
                skipped.left_out[_kind(line["type"])] += 1
                continue
            identity = name(line.get("sessionId"))
            tellers.setdefault(identity, _Teller(identity)).take(line, skipped)
        except SessionError as error:
            skipped.bad(f"line {number}", str(error))
    return [session for teller in tellers.values() if (session := teller.told()).turns]


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, of which none takes more memory than it may: what is left of a longer one is passed over."""
    while raw := file.readline(LONGEST_LINE + 2):
        yield raw
        while len(raw) == LONGEST_LINE + 2 and not raw.endswith(b"\n"):
            raw = file.readline(LONGEST_LINE + 2)


def _kind(value: str) -> str:
    return value if re.fullmatch(r"[a-z-]{1,40}", value) else "other"


class _Teller:
    """Puts the lines of one session together."""

    def __init__(self, identity: str) -> None:
        self.session = Session(READER, identity)
        self.prose: list[str] = []
        self.seen: set[str] = set()
        self.calls: dict[str, Turn] = {}

    def take(self, line: dict[str, Any], skipped: Skipped) -> None:
        """One line of type user or assistant. Raises `SessionError` if it is none that can be read."""
        if line.get("isSidechain") is True:
            skipped.left_out["side chain"] += 1
            return
        if any(line.get(mark) is True for mark in _META):
            skipped.left_out["meta"] += 1
            return
        message = line.get("message")
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | list):
            raise SessionError("a message without content")
        if identity := name(line.get("uuid")):
            if identity in self.seen:
                skipped.left_out["repeated"] += 1
                return
            self.seen.add(identity)
        self._head(line, message)
        if line["type"] == "assistant":
            self._assistant(message["content"])
        else:
            self._user(message["content"], skipped)

    def told(self) -> Session:
        """The session so far."""
        self._spoken()
        return self.session

    def _head(self, line: dict[str, Any], message: dict[str, Any]) -> None:
        session = self.session
        session.started_at = session.started_at or moment(line.get("timestamp"))
        if not session.repo and (place := line.get("cwd")) and isinstance(place, str):
            path = PureWindowsPath(place) if "\\" in place else PurePosixPath(place)
            session.repo = name(path.name)
        model = name(message.get("model"))
        if not session.model and model != "<synthetic>":
            session.model = model

    def _assistant(self, content: str | list[Any]) -> None:
        for block in [{"text": content}] if isinstance(content, str) else map(table, content):
            kind = block.get("type")
            if kind == "tool_use":
                turn = Turn("\n\n".join(self.prose), name(block.get("name")) or "unknown", block.get("input"))
                self.prose = []
                identity = name(block.get("id"))
                if identity in self.calls:
                    continue
                if identity:
                    self.calls[identity] = turn
                self.session.turns.append(turn)
            elif kind in (None, "text") and (text := plain([block])):
                self.prose.append(text)

    def _user(self, content: str | list[Any], skipped: Skipped) -> None:
        for block in map(table, entries(content)):
            if block.get("type") == "tool_result":
                turn = self.calls.get(name(block.get("tool_use_id")))
                if turn is None:
                    skipped.left_out["result without its call"] += 1
                else:
                    turn.observation = _joined(turn.observation, plain(block.get("content")))
        text = plain(content)
        if not text.strip():
            return
        if _COMMAND.match(text):
            skipped.left_out["command"] += 1
        elif not self.session.prompt:
            self.session.prompt = text
        else:
            self._spoken()
            if self.session.turns:
                last = self.session.turns[-1]
                last.observation = _joined(last.observation, f"[user] {text}")

    def _spoken(self) -> None:
        """What was said without a call becomes a turn of its own."""
        if self.prose:
            self.session.turns.append(Turn("\n\n".join(self.prose)))
            self.prose = []


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
