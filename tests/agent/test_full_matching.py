"""Edits by quoted text: the one place that is meant, the file's own indentation, and nothing else touched."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CallError
from agent.full.edits import Desk
from agent.full.matching import match
from agent.turns import Call
from agent.workspace import Workspace, write_tree

CODE = """import os


class Shop:
    def fee(self, price):
        if price > 10:
            return 7
        return 0

    def total(self, prices):
        result = sum(prices)
        return result + self.fee(result)

    def label(self, name):
        return f"{name}: {self.total([1, 2])}"
"""
LINES = CODE.removesuffix("\n").split("\n")


def edited(old: str, new: str, lines: list[str] = LINES) -> tuple[str, str]:
    found = match(lines, old.split("\n"), new.split("\n"))
    return "\n".join([*lines[: found.start - 1], *found.new, *lines[found.end :]]), found.how


def replaced(old: str, new: str) -> str:
    assert CODE.count(old) == 1
    return CODE.replace(old, new).removesuffix("\n")


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("        if price > 10:", "        if price >= 10:", "exactly"),
        ("if price > 10:", "if price >= 10:", "but for white space"),
        ("  if price > 10:\n      return 7", "  if price >= 10:\n      return 7", "but for white space"),
        ("if price > 10:\n            return 7", "if price >= 10:\n            return 7", "but for white space"),
        (
            "6|        if price > 10:\n7|            return 7",
            "6|        if price >= 10:\n7|            return 7",
            "but for white space",
        ),
        ("\n        if  price > 10: \n", "\n        if price >= 10:\n", "but for white space"),
        ("\tif price > 10:\n\t\treturn 7", "\tif price >= 10:\n\t\treturn 7", "but for white space"),
        ("price > 10", "price >= 10", "as part of a line"),
        (
            "    def fee(self, prices):\n        if price > 10:\n            return 7",
            "    def fee(self, price):\n        if price >= 10:\n            return 7",
            "nearly",
        ),
    ],
)
def test_a_quote_is_found_and_what_is_put_there_stands_right(old: str, new: str, how: str) -> None:
    text, found = edited(old, new)
    assert text == replaced("if price > 10:", "if price >= 10:")
    assert found.startswith(how)


def test_lines_that_are_added_take_the_indentation_of_those_around() -> None:
    text, _ = edited("if price > 10:\n    return 7", "if price > 10:\n    if price > 100:\n        return 8\n    return 7")
    assert text == replaced(
        "            return 7", "            if price > 100:\n                return 8\n            return 7"
    )


def test_what_was_misquoted_but_not_meant_to_change_stays() -> None:
    rest = '        return result + self.fee(results)\n\n    def label(self, name):\n        return f"{name}"'
    text, how = edited(f"        result = sum(prices)\n{rest}", f"        result = sum(prices) + 1\n{rest}")
    assert how.startswith("nearly")
    assert text == replaced("result = sum(prices)", "result = sum(prices) + 1")


def test_a_line_that_was_not_quoted_stays_or_nothing_is_done() -> None:
    rest = "    def total(self, prices):\n        return result + self.fee(result)\n\n    def label(self, name):"
    text, how = edited(f"        return 0\n\n{rest}", f"        return 1\n\n{rest}")
    assert how.startswith("nearly")
    assert text == replaced("        return 0", "        return 1")
    with pytest.raises(CallError, match="not in the file"):
        edited(f"        return 0\n\n{rest}", "        return 1")


@pytest.mark.parametrize(
    ("old", "why"),
    [
        ("        return nothing_like_this(at, all)", "view it first|the nearest are"),
        ("        result = sum(values) * 2\n        log(result)\n        return None", "not in the file"),
        ("x" * 40, "view it first"),
        ("\n".join(["a b"] * 500), "too many"),
    ],
)
def test_what_is_not_there_is_not_guessed(old: str, why: str) -> None:
    with pytest.raises(CallError, match=why):
        edited(old, "x")


def test_the_nearest_lines_are_shown_where_none_is_near_enough() -> None:
    with pytest.raises(CallError, match=r"the nearest are\n(.*\n)*10\|    def total"):
        edited("    def total(self, values):\n        answer = sum(values)\n        return answer", "x")


def test_more_than_one_place_is_none() -> None:
    lines = ["def a():", "    x = 1", "def b():", "    x = 1", "def c():", "\tx = 1"]
    with pytest.raises(CallError, match=r"occur 2 times \(lines 2-2, 4-4\)"):
        match(lines, ["    x = 1"], ["    x = 2"])
    with pytest.raises(CallError, match="occur 3 times"):
        match(lines, ["  x = 1"], ["  x = 2"])
    assert match(lines, ["def b():", "    x = 1"], ["y"]).start == 3


def test_like_places_are_none() -> None:
    block = ["def compute_total(values):", "    total = sum(values)", "    return total"]
    lines = [*block, "", *(line.replace("total", "totals") for line in block)]
    with pytest.raises(CallError, match="not in the file"):
        match(lines, [line.replace("total", "tota1s") for line in block], ["x"])


def test_tabs_stay_tabs() -> None:
    lines = ["class A:", "\tdef f(self):", "\t\tif x:", "\t\t\treturn 1"]
    found = match(
        lines, ["        if x:", "            return 1"], ["        if y:", "            z()", "            return 1"]
    )
    assert found.new == ["\t\tif y:", "\t\t\tz()", "\t\t\treturn 1"]


LINE = st.sampled_from(
    ["", " ", "a", "    a", "\ta = 1", "def f(x):", "    return x", "    return y", "12|a", "=>", "\udc80", "é" * 30]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=12), st.lists(LINE, min_size=1, max_size=5), st.lists(LINE, max_size=5))
def test_any_quote_is_one_place_or_a_correction(lines: list[str], old: list[str], new: list[str]) -> None:
    if not any(line.strip() for line in old):
        return
    try:
        found = match(lines, old, new)
    except CallError:
        return
    assert 1 <= found.start <= found.end <= len(lines)
    there = [line.split() for line in lines[found.start - 1 : found.end]]
    if found.how == "exactly":
        assert lines[found.start - 1 : found.end] == old
        assert found.new == new
    elif "white space" in found.how and not all(line.lstrip()[:3] == "12|" for line in old if line.strip()):
        assert [line for line in there if line] == [line.split() for line in old if line.strip()]


def test_quotes_in_long_files_are_found_in_time() -> None:
    rng = random.Random(1)
    names = [f"name_{i}" for i in range(400)]
    lines = [f"    {rng.choice(names)} = {rng.choice(names)}({rng.choice(names)}, {rng.randint(1, 99)})" for _ in range(10_000)]
    old = [line.replace("name", "nmae", 1) if i % 3 == 0 else line for i, line in enumerate(lines[7_000:7_012])]
    found = match(lines, old, old)
    assert (found.start, found.end) == (7_001, 7_012)
    with pytest.raises(CallError):
        match(lines, ["    nothing_like = this(in_the, 'file')", "    at_all = 3"], ["x"])


# Files


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    write_tree(tmp_path / "w", {"shop.py": CODE, "broken.py": "def f(:\n    x\n", "a.json": '{"a": 1}\n', "a.toml": "a = 1\n"})
    return Desk(Workspace(tmp_path / "w"))


def test_an_edit_tells_what_it_did(desk: Desk) -> None:
    told = desk.edit(Call("edit", "shop.py", old="if price > 10:", body="if price >= 10:"))
    assert told.startswith("shop.py: replaced lines 6-6, found but for white space; they were\n-        if price > 10:\nnow\n")
    assert "\n6|        if price >= 10:\n" in told
    assert "5|    def fee(self, price):" in told
    assert desk.edit(Call("edit", "shop.py", 6, 7)).startswith("shop.py: removed lines 6-7; now\n")


@pytest.mark.parametrize(
    ("path", "line", "body"),
    [
        ("shop.py", 6, "        if price > (10:"),
        ("a.json", 1, "{a: 1}"),
        ("a.toml", 1, "a ="),
        ("shop.py", 6, "        if price > 10:"),
    ],
)
def test_an_edit_that_breaks_a_file_or_changes_nothing_is_refused(desk: Desk, path: str, line: int, body: str) -> None:
    before = desk.workspace.snapshot()
    with pytest.raises(CallError, match="nothing was changed"):
        desk.edit(Call("edit", path, line, line, body=body))
    assert desk.workspace.snapshot() == before
    assert not desk.done


def test_a_file_that_was_broken_may_be_edited(desk: Desk) -> None:
    desk.edit(Call("edit", "broken.py", 2, 2, body="    y"))
    desk.edit(Call("edit", "broken.py", 1, 1, body="def f():"))
    assert desk.workspace.read("broken.py") == "def f():\n    y\n"


@pytest.mark.parametrize(
    "text", ["a\r\nb\r\nc\r\n", "a\nb\nc", "a\r\nb\nc\n", "\ufeffa\nb\n", "caf\udce9\nb\nc\n", "a\nb\x0cb\u2028\nc\n"]
)
def test_other_lines_stay_byte_for_byte(desk: Desk, text: str) -> None:
    write_tree(desk.workspace.root, {"f.txt": text})
    desk.edit(Call("edit", "f.txt", old=text.split("\n")[1].removesuffix("\r"), body="new"))
    parts = text.split("\n")
    parts[1] = "new\r" if parts[1].endswith("\r") else "new"
    assert desk.workspace.read("f.txt") == "\n".join(parts)


def test_every_change_can_be_taken_back_in_turn(desk: Desk) -> None:
    before = desk.workspace.snapshot()
    desk.edit(Call("edit", "shop.py", 1, 1, body="import sys"))
    desk.create("deep/er/new.py", "x = 1")
    desk.edit(Call("edit", "deep/er/new.py", 1, 1, body="x = 2"))
    desk.delete("a.json")
    desk.delete("deep/er/new.py")
    for _ in range(5):
        desk.undo()
    assert desk.workspace.snapshot() == before
    assert not (desk.workspace.root / "deep").exists()
    with pytest.raises(CallError, match="nothing to undo"):
        desk.undo()


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/x.py",
        "../x.py",
        "a/../../x.py",
        "link/x.py",
        "dangling",
        ".git/config",
        "sub/.GIT/hooks/post-commit",
        ".git ./config",
        "git~1/config",
        "shop.py",
        "shop.py/x.py",
        "",
        ".",
        "new/",
        "x\n.py",
        "x\u200b.py",
        "/".join("a" * 60),
        "a" * 300,
    ],
)
def test_new_files_are_made_only_where_they_may_be(desk: Desk, path: str) -> None:
    outside = desk.workspace.root.parent / "outside"
    outside.mkdir()
    (desk.workspace.root / "link").symlink_to(outside)
    (desk.workspace.root / "dangling").symlink_to(outside / "x.py")
    before = sorted(desk.workspace.root.rglob("*"))
    with pytest.raises(CallError):
        desk.create(path, "x = 1")
    assert not list(outside.iterdir())
    assert sorted(desk.workspace.root.rglob("*")) == before
    assert not (desk.workspace.root.parent / "x.py").exists()


def test_undo_does_not_go_through_a_link_that_came_later(desk: Desk, tmp_path: Path) -> None:
    desk.edit(Call("edit", "shop.py", 1, 1, body="import sys"))
    secret = tmp_path / "secret"
    secret.write_text("KEY\n")
    (desk.workspace.root / "shop.py").unlink()
    (desk.workspace.root / "shop.py").symlink_to(secret)
    with pytest.raises(CallError):
        desk.undo()
    assert secret.read_text() == "KEY\n"
