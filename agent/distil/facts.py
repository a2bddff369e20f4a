"""Facts about a repository that a finished attempt bears out: commands that work, and what code and tests look like.

A fact is canonical: two attempts that bear out the same one state it in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from agent.distil.actions import Action
from agent.distil.sheets import changes
from agent.full.files import rank
from agent.recalled import plain

MOST = 3
MAX_FACT_CHARS = 200
MAX_NAMES = 100
TOP = 60
"""Lines at the top of a file in which its imports are looked for."""
_IMPORT = re.compile(r"from\s+([.\w]{1,120})\s+import\s+\(?([\w, ]{1,400})")
_PIPED = re.compile(r"\s*(?:2>&1|2>/dev/null|\|\s*(?:tail|head|grep|cat|tee)\b[^|]*)\s*")
_GOES = re.compile(r"\s*cd\s+\S+\s*(?:&&|;)\s*")
_NAMED = re.compile(r"(?:^|/)(?:test_)?([^/]+?)(?:_tests?)?\.py$")


def commands(done: Sequence[Action], sources: Sequence[str], imported: bool) -> list[str]:
    """Test runs that were seen to pass, at most `MOST`; of another agent's session as commands of the shell."""
    found: list[str] = []
    for action in done:
        if action.kind == "test" and action.ok:
            found += [_shell(action.command)] if imported else [_targets(target, sources) for target in action.command.split()]
    return _few(found)


def _targets(target: str, sources: Sequence[str]) -> str:
    """What a test target of this program's own `test` is good for; nothing for one that cannot be named in a line."""
    path = target.partition("::")[0]
    if not _sayable(path) or rank(path) != 1:
        return ""
    tested = [source for source in sources if _stem(source) == _stem(path)]
    return f"`test {path}` runs the tests of {tested[0]}" if tested else f"`test {path}` runs the tests in {path}"


def _shell(command: str) -> str:
    command = " ".join(_PIPED.sub(" ", _GOES.sub("", command)).split())
    absolute = any(word.lstrip("'\"").startswith(("/", "~")) or "=/" in word for word in command.split())
    return f"`{command}` runs tests" if _sayable(command) and not absolute else ""


def conventions(path: str, before: Sequence[str], after: Sequence[str], seen: Iterable[str]) -> list[str]:
    """What an accepted change to a source file shows: helpers of the repository that it calls; where tests lie."""
    if rank(path) != 0 or not _sayable(path):
        return []
    blocks = changes(before, after)
    added = "\n".join(line[:500] for _, _, start, end in blocks for line in after[start:end] if not line.startswith("\0"))
    removed = "\n".join(line[:500] for start, end, _, _ in blocks for line in before[start:end] if not line.startswith("\0"))
    found = [_helper(module, name, added) for module, name in _imports(path, after) if not _used(name, removed)]
    tests = [test for test in seen if _is_test_of(test, path)]
    return _few([*found, *(f"tests of {path} are in {test}" for test in sorted(set(tests))[:1])])


def _imports(path: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    """Modules of the repository itself and the names that a file imports from them."""
    own = PurePosixPath(path).parts
    package = next((part for part in own if part not in ("src", "lib")), "")
    found: list[tuple[str, str]] = []
    for line in lines[:TOP]:
        if (match := _IMPORT.match(line[:600])) and match.group(1).split(".")[0] in ("", package):
            module = match.group(1)
            if module.startswith("."):
                up = len(module) - len(module.lstrip("."))
                module = ".".join([*own[: max(0, len(own) - up)], *filter(None, [module.lstrip(".")])])
            names = [part.split() for part in match.group(2).split(",") if part.strip()]
            found += [(module, words[-1]) for words in names if words[-1].isidentifier()]
    return found[:MAX_NAMES]


def _helper(module: str, name: str, added: str) -> str:
    if not _used(name, added):
        return ""
    if re.search(rf"\breturn {name}\(", added):
        return f"some functions return `{name}(...)` of {module}"
    if re.search(rf"\braise {name}\b", added):
        return f"some errors are `{name}` of {module}"
    return f"some code calls `{name}` of {module}"


def _used(name: str, text: str) -> bool:
    return bool(re.search(rf"\b{name}\(|\braise {name}\b", text))


def _is_test_of(test: str, path: str) -> bool:
    return _sayable(test) and rank(test) == 1 and "test" in PurePosixPath(test).name and _stem(test) == _stem(path)


def _stem(path: str) -> str:
    match = _NAMED.search(path)
    return match.group(1) if match else PurePosixPath(path).stem


def _sayable(text: str) -> bool:
    return 0 < len(text) <= 120 and text.isprintable() and "`" not in text and plain(text) == text


def _few(facts: Iterable[str]) -> list[str]:
    return [fact for fact in dict.fromkeys(facts) if fact and len(fact) <= MAX_FACT_CHARS][:MOST]
