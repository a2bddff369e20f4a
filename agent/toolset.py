"""The tools of the full protocol as a model is told about them; `agent.turns` reads and renders the calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Argument = tuple[Mapping[str, object], str]
"""JSON schema and meaning."""

TEXT: Mapping[str, object] = {"type": "string"}
LINE: Mapping[str, object] = {"type": "integer", "minimum": 1}
WORDS: Mapping[str, object] = {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True)
class Tool:
    """One tool: its name, what it does, and its arguments by name."""

    name: str
    description: str
    required: Mapping[str, Argument] = field(default_factory=dict)
    optional: Mapping[str, Argument] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Argument]:
        """All of them, the required ones first."""
        return {**self.required, **self.optional}

    @property
    def schema(self) -> dict[str, object]:
        """JSON schema of the arguments, an object."""
        return {
            "type": "object",
            "properties": {name: {**kind, "description": meaning} for name, (kind, meaning) in self.arguments.items()},
            "required": list(self.required),
            "additionalProperties": False,
        }


_PATH = (TEXT, "path of a file, relative to the top of the repository")
_LINES = {"start": (LINE, "first line"), "end": (LINE, "last line")}
FULL_TOOLS: tuple[Tool, ...] = (
    Tool(
        "map",
        "What is where: the folders of the repository, the files of a folder, or the classes and functions of a file.",
        optional={"path": (TEXT, "folder or file; the whole repository if left out")},
    ),
    Tool(
        "search",
        "Lines that contain a text (if there are none: that match it as a regular expression), definitions first; "
        "and files whose names contain it.",
        {"pattern": (TEXT, "one line of text, as it stands in the file")},
        {"path": (TEXT, "only in this folder or file")},
    ),
    Tool("view", "Lines of a file, with their numbers. `start` alone shows what is around that line.", {"path": _PATH}, _LINES),
    Tool(
        "edit",
        "Replace lines of a file. Say which: either `old`, the lines as they are now, enough of them to be found only once; "
        "or `start` and `end`.",
        {"path": _PATH, "new": (TEXT, "the lines to put there, with their indentation; empty to remove them")},
        {"old": (TEXT, "the lines to replace"), **_LINES},
    ),
    Tool("create", "Make a new file.", {"path": _PATH, "text": (TEXT, "all of its text")}),
    Tool("delete", "Remove a file.", {"path": _PATH}),
    Tool(
        "test",
        "Run tests, and see how they fail.",
        optional={"targets": (WORDS, "files or tests, as the test runner names them; all if left out")},
    ),
    Tool("undo", "Take back the last edit, create or delete."),
    Tool("diff", "All that has been changed so far."),
    Tool("submit", "End the work. Asked for the first time, it shows the change for a last review."),
)
