"""From what a model said to the program that is run: out of prose, thoughts, several blocks, a missing or open fence."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

from agent.models.thinking import BEGIN, END
from eval.coding.problems import Problem

MAX_CHARS = 20_000
_CUTS, _TRIED = 100, 4
_FUTURE = "from __future__ import "
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")
_BEGINS = re.compile(r"(?:async def|def|class|from|import) \w|@\w")


def program(problem: Problem, said: str) -> str:
    """The whole source to be run for an answer: what stands before the wanted function, and the answer's code.

    Of several blocks that define the function the last one that is whole Python counts. Without a fence, the code is
    what can be read as Python from its first line on. A body alone is put below the given head.
    """
    text = _spoken(spelt(said[:MAX_CHARS]).replace("\r\n", "\n"))
    blocks = [textwrap.dedent(block) if block[:1].isspace() else block for block in _blocks(text)]
    for tried in (blocks, map(_longest, blocks[-_TRIED:]), [_longest(_from_code_on(text))]):
        if whole := [code for code in tried if problem.entry in _defined(code)]:
            return _below(problem.header, whole[-1])
    body = blocks[-1] if blocks else text.strip("\n")
    completed = f"{problem.header}{problem.stub}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    if problem.stub and body.strip() and _error_in(completed) is None:
        return completed
    return _below(problem.header, body)


def spelt(text: str) -> str:
    """Text that can be written to a file: what is no Unicode is replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _below(header: str, code: str) -> str:
    """The code below its header; imports from the future must stand first."""
    lines = code.split("\n")
    future = [line for line in lines if line.startswith(_FUTURE)]
    return "\n".join([*future, header, *(line for line in lines if not line.startswith(_FUTURE)), ""])


def _spoken(text: str) -> str:
    """What was said after a thought; nothing, if the thought never ended."""
    if END in text:
        return text.rpartition(END)[2]
    return "" if text.lstrip().startswith(BEGIN) else text


def _blocks(text: str) -> list[str]:
    """The fenced blocks; one that was never closed goes on to the end."""
    found: list[list[str]] = []
    mark = ""
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if fence and not mark:
            mark = fence.group(1)
            found.append([])
        elif fence and line.strip().startswith(mark) and not line.strip().strip(mark[0]):
            mark = ""
        elif mark:
            found[-1].append(line)
    return ["\n".join(lines) for lines in found if any(map(str.strip, lines))]


def _from_code_on(text: str) -> str:
    """The text from its first line of code on, without the lines of fences."""
    lines = [line for line in text.split("\n") if not _FENCE.fullmatch(line)]
    first = next((i for i, line in enumerate(lines) if _BEGINS.match(line)), len(lines))
    return "\n".join(lines[first:])


def _longest(code: str) -> str:
    """The longest beginning of `code`, in whole lines, that is Python: prose behind it and a cut last line are left out."""
    lines = code.split("\n")
    for _ in range(_CUTS):
        if not lines:
            break
        error = _error_in("\n".join(lines))
        if error is None:
            return "\n".join(lines)
        # An error in line n says that the lines before it may be whole, and that no more than those are.
        lines = lines[: min(len(lines), max(error, 1)) - 1]
    return ""


def _error_in(code: str) -> int | None:
    """The line (from 1) that keeps `code` from being Python; None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _defined(code: str) -> set[str]:
    """Names that a piece of Python defines at its top."""
    found: set[str] = set()
    for node in ast.parse(code).body if _error_in(code) is None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found
