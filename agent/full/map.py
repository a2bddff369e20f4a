"""Map: the folders of a repository, the files of a folder, the classes and functions of a file."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from textwrap import wrap

from agent.errors import CallError
from agent.full.files import SOURCE, folder_of, named, rank, raw, text_of, walk
from agent.parsing import parsed
from agent.tools import lines_of
from agent.workspace import Workspace

MAX_LINES = 90
MAX_CHARS = 9_000
MAX_INNER = 8
MAX_FILES_READ = 150
WIDTH = 120
_KINDS = ("", ", tests", ", text and data", ", not of this project or generated")
_TOP = re.compile(r"(?:async +)?(?:def|class) +(\w+)", re.ASCII)
_BEFORE = "pub|export|default|public|private|protected|internal|static|final|abstract|async|unsafe|const|extern|inline|virtual"
_KEYWORD = "class|struct|enum|trait|interface|impl|module|mod|namespace|def|fn|func|function|macro_rules!"
_DEFINITION = re.compile(
    rf"(?P<indent>[ \t]*)(?P<text>(?:(?:{_BEFORE})(?:\([^)]*\))?[ \t]+)*(?:{_KEYWORD})(?=[ \t<*])[^{{;]{{1,100}})"
)
_HEADING = re.compile(r"(?P<indent>)(?P<text>#{1,4} .{1,100})")


@dataclass(frozen=True)
class Part:
    """A class, function or heading: where it begins and how deep it stands."""

    line: int
    depth: int
    text: str


def overview(workspace: Workspace, path: str = "") -> str:
    """The observation of a map.

    Raises:
        CallError: there is no such folder or file.
    """
    folder = folder_of(workspace, path)
    if folder is None:
        return outline(named(workspace, path), text_of(workspace, path))
    files = walk(workspace, folder)
    if not files:
        raise CallError(f"{path or 'the repository'} has no files")
    prefix = f"{folder}/" if folder else ""
    inner: dict[str, list[str]] = {}
    direct: list[str] = []
    for file in files:
        name, slash, _ = file.removeprefix(prefix).partition("/")
        if slash:
            inner.setdefault(f"{prefix}{name}/", []).append(file)
        else:
            direct.append(file)
    shown = [f"{folder or 'repository'}: {_counted(files)}"]
    ranked = sorted(inner, key=lambda name: (_rank(inner[name]), -_sources(inner[name]), -len(inner[name]), name))
    folders = [line for name in ranked for line in _folder(name, inner[name], deep=len(inner) <= 25)]
    shown += _cut(folders, MAX_LINES * 2 // 3, "folders")
    shown += _cut(_files(workspace, direct, prefix), MAX_LINES - min(len(shown), MAX_LINES // 2), "files")
    return "\n".join(shown)


def _counted(files: list[str]) -> str:
    kinds = Counter(PurePosixPath(file).suffix or "others" for file in files)
    some = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
    return f"{len(files)} file{'' if len(files) == 1 else 's'} ({some})"


def _rank(files: list[str]) -> int:
    """The most usual rank of source files in a folder, or of all."""
    source = [file for file in files if SOURCE.search(file)]
    return Counter(map(rank, source or files)).most_common(1)[0][0]


def _sources(files: list[str]) -> int:
    return sum(rank(file) == 0 for file in files)


def _folder(name: str, files: list[str], deep: bool) -> Iterator[str]:
    kind = _rank(files)
    yield f"{name}  {_counted(files)}{_KINDS[kind]}"
    below = Counter(file.removeprefix(name).partition("/")[0] for file in files if "/" in file.removeprefix(name))
    if deep and kind == 0 and below:
        some = [f"{inner}/ {count}" for inner, count in below.most_common(MAX_INNER)]
        yield f"    {', '.join(some)}{f' and {len(below) - MAX_INNER} more folders' if len(below) > MAX_INNER else ''}"


def _files(workspace: Workspace, files: list[str], prefix: str) -> list[str]:
    shown: list[str] = []
    for file in sorted(files, key=lambda file: (rank(file), file))[:MAX_FILES_READ]:
        text = raw(workspace, file).decode("utf-8", "replace")
        lines = lines_of(text)
        names = [found.group(1) for line in lines if (found := _TOP.match(line))] if file.endswith((".py", ".pyx")) else []
        if not file.endswith((".py", ".pyx")) and SOURCE.search(file):
            names = [part.text.split("(")[0].split()[-1] for part in _by_pattern(lines, _DEFINITION) if part.depth == 0]
        names = sorted(dict.fromkeys(names), key=lambda name: name.startswith("_"))
        told = ", ".join(names[:MAX_INNER]) + (f" and {len(names) - MAX_INNER} more" if len(names) > MAX_INNER else "")
        size = f"{len(lines)} lines" if text else "binary, empty or large"
        shown.append(f"{file}  {size}{f': {told}' if told else ''}"[: 2 * WIDTH])
    shown += sorted(files, key=lambda file: (rank(file), file))[MAX_FILES_READ:]
    return shown


def _cut(lines: list[str], most: int, what: str) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"[{len(lines) - most} more lines of {what}]"]


def outline(path: str, text: str) -> str:
    """The parts of a file with their lines, the deepest left out where they are too many."""
    lines = lines_of(text)
    parts = list(_parts(path, text, lines))
    head = f"{path}: {len(lines)} lines"
    if not parts:
        return f"{head}, no classes or functions found: view it"
    deepest = max(part.depth for part in parts)
    for depth in range(deepest, -1, -1):
        kept = [part for part in parts if part.depth <= depth]
        shown = _told(kept)
        if sum(len(line) + 1 for line in shown) <= MAX_CHARS:
            break
    gone = f", {len(parts) - len(kept)} deeper parts are not shown" if len(kept) < len(parts) else ""
    while sum(len(line) + 1 for line in shown) > MAX_CHARS:
        shown = [*shown[: len(shown) * 3 // 4], "[more: search or view the rest]"]
    return "\n".join([f"{head}{gone}", *shown])


def _told(parts: list[Part]) -> list[str]:
    """One line for each part that has parts or stands at the top; runs of inner ones share lines."""
    shown: list[str] = []
    run: list[str] = []
    for number, part in enumerate(parts):
        leads = number + 1 < len(parts) and parts[number + 1].depth > part.depth
        if part.depth == 0 or leads:
            shown += _joined(run)
            run = []
            shown.append(f"{'    ' * part.depth}{part.line}: {part.text}")
        else:
            run.append(f"{part.text.removeprefix('def ')}:{part.line}")
    return shown + _joined(run)


def _joined(run: list[str]) -> list[str]:
    return wrap(", ".join(run), WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False) if run else []


def _parts(path: str, text: str, lines: list[str]) -> Iterator[Part]:
    if path.endswith((".py", ".pyi")):
        try:
            tree = parsed(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
        else:
            return _of_python(tree)
    return iter(_by_pattern(lines, _HEADING if path.endswith((".md", ".markdown")) else _DEFINITION))


def _of_python(tree: ast.Module) -> Iterator[Part]:
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in reversed(tree.body)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(map(_unparsed, node.bases[:3]))
            yield Part(node.lineno, depth, f"class {node.name}{f'({bases})' if bases else ''}"[:WIDTH])
            waiting += [(inner, depth + 1) for inner in reversed(node.body)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Part(node.lineno, depth, f"def {node.name}"[:WIDTH])
        elif isinstance(node, ast.If | ast.Try):
            inner = [*node.body, *node.orelse, *(line for handler in getattr(node, "handlers", ()) for line in handler.body)]
            waiting += [(line, depth) for line in reversed(inner)]


def _unparsed(base: ast.expr) -> str:
    try:
        return ast.unparse(base)
    except (RecursionError, ValueError):  # what can be parsed may still be too deep
        return "..."


def _by_pattern(lines: list[str], pattern: re.Pattern[str]) -> list[Part]:
    found = [(number, match) for number, line in enumerate(lines, start=1) if (match := pattern.match(line[:400]))]
    steps = sorted({len(match.group("indent").expandtabs(4)) for _, match in found})
    return [
        Part(number, min(3, steps.index(len(match.group("indent").expandtabs(4)))), match.group("text").strip()[:WIDTH])
        for number, match in found
    ]
