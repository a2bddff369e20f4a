"""The exam of the full toolkit, told as text or natively: what is to be done next is said, how is for the model to know."""

from __future__ import annotations

from collections.abc import Callable

from agent.session import Toolkit
from agent.tools import TestRun
from agent.turns import Call
from eval.pocket.stream import EPOCH
from eval.tool_format.prompts import Prompt, Turn
from eval.tool_format.score import Right
from eval.tool_format.shop import CART, CONFIG, FILES, PRICES, REPORT
from memory.knowledge.memories import Recalled
from memory.tasks import Task

_CART, _PRICES, _CONFIG, _REPORT = "shop/cart.py", "shop/prices.py", "shop/config.py", "shop/report.py"
_FAILED = TestRun(False, "tests/test_prices.py::test_discount FAILED: assert 9.5 == 9\n1 failed, 2 passed")
_BY_NAME = f"{_PRICES}\n    return amount - amount * percent / 100\n=>\n    return amount * (1 - percent / 100)"


def _fenced(call: str) -> str:
    return f"```\n{call}\n```"


def _turn(call: str, *rights: Right, becomes: tuple[str, str] | None = None) -> Turn:
    return Turn(_fenced(call), rights, becomes)


def _on(tool: str, path: str, more: Callable[[Call], bool] = lambda call: True) -> Right:
    return Right(tool, lambda call: call.target.removeprefix("./").rstrip("/") == path and more(call))


def _view(path: str, more: Callable[[Call], bool] = lambda call: True) -> Turn:
    return _turn(f"view {path}", _on("view", path, more))


def _search(text: str, within: str = "") -> Turn:
    call = f"search {text} in {within}" if within else f"search {text}"
    return _turn(call, Right("search", lambda c: text in c.target and c.within.removeprefix("./").rstrip("/") == within))


def _test(*targets: str) -> Turn:
    named = set(targets)
    return _turn(
        " ".join(["test", *targets]), Right("test", lambda call: {t.removeprefix("./") for t in call.targets} == named)
    )


def _edit(path: str, call: str, before: str, old: str, new: str) -> Turn:
    assert before.count(old) == 1
    return _turn(call, _on("edit", path), becomes=(path, before.replace(old, new)))


_SUBMIT, _DIFF, _UNDO = (_turn(name, Right(name)) for name in ("submit", "diff", "undo"))
_WHOLE = _turn("test", Right("test", lambda call: set(call.targets) <= {"tests", "tests/"}))
_MAP = _turn(f"map {_PRICES}", _on("map", _PRICES))
_LINES = _turn(f"view {_CART} 13-17", _on("view", _CART, lambda c: (c.start, c.end) == (13, 17)))
_AROUND = _turn(
    f"view {_PRICES} 10", _on("view", _PRICES, lambda c: c.start is not None and c.end is not None and c.start <= 10 <= c.end)
)
_CREATE = _turn("create shop/stock.py\nLIMIT = 10", _on("create", "shop/stock.py"), becomes=("shop/stock.py", "LIMIT = 10\n"))
_DELETE = _turn("delete shop/legacy.py", _on("delete", "shop/legacy.py"))
_RENAME = _edit(_CART, f"edit {_CART}\n    def count_lines(self):\n=>\n    def size(self):", CART, "count_lines", "size")
_IMPORT = _edit(
    _REPORT,
    f"edit {_REPORT} 2-3\n\nfrom collections import defaultdict\n\n\n",
    REPORT,
    '"""What was sold."""\n',
    '"""What was sold."""\n\nfrom collections import defaultdict\n',
)
_DROP = _edit(
    _PRICES,
    f"edit {_PRICES} 14-15",
    PRICES,
    "def old_discount(amount):\n    return amount * 0.9\n",
    "",
)
_DEFAULT = _edit(_CART, f"edit {_CART} 10\n    def add(self, name, price, count=2):", CART, "count=1", "count=2")
_SETTING = _edit(_CONFIG, f"edit {_CONFIG}\nMAX_LINES = 50\n=>\nMAX_LINES = 80", CONFIG, "50", "80")
_DISCOUNT = _edit(_PRICES, f"edit {_BY_NAME}", PRICES, "amount - amount * percent / 100", "amount * (1 - percent / 100)")
_EDITED = (f"edit {_BY_NAME}",)
_SAW_PRICES = (f"view {_PRICES}",)
_THEN = "Do just this, one call in each turn:"

_TABLE: tuple[tuple[str, str, str, tuple[Turn, ...], tuple[str, ...]], ...] = (
    ("text-1", "text tools", f"First of all, look at the whole of {_CART}.", (_view(_CART),), ()),
    ("text-2", "text tools", f"Show only lines 13 to 17 of {_CART}, before anything else.", (_LINES,), ()),
    ("text-3", "text tools", "Make the new file shop/stock.py; its one line is LIMIT = 10. Begin with that.", (_CREATE,), ()),
    ("text-4", "text tools", "The file shop/legacy.py is no longer used. Remove it now.", (_DELETE,), ("view shop/legacy.py",)),
    ("valid-1", "validation", "See whether all tests pass before you do anything else.", (_WHOLE,), ()),
    ("valid-2", "validation", "Run only the tests in tests/test_prices.py, now.", (_test("tests/test_prices.py"),), ()),
    (
        "valid-3",
        "validation",
        "Run just the one test tests/test_cart.py::test_total, now.",
        (_test("tests/test_cart.py::test_total"),),
        (f"view {_CART}",),
    ),
    ("valid-4", "validation", "Write `discounted` as one product, then at once run the whole test suite.", (_WHOLE,), _EDITED),
    (
        "code-1",
        "code intelligence",
        "Find out where `with_tax` is defined. Search for it by its name.",
        (_search("with_tax"),),
        (),
    ),
    ("code-2", "code intelligence", f"List the functions that {_PRICES} has, without showing its text.", (_MAP,), ()),
    (
        "code-3",
        "code intelligence",
        "Find every place inside the folder tests that uses `discounted`: search in that folder only.",
        (_search("discounted", "tests"),),
        (f"view {_PRICES}",),
    ),
    ("code-4", "code intelligence", f"Show what stands around line 10 of {_PRICES}; not the whole file.", (_AROUND,), ()),
    ("git-1", "git", "Write `discounted` as one product, then show all that you have changed so far.", (_DIFF,), _EDITED),
    (
        "git-2",
        "git",
        "That last edit was a mistake: take it back with the tool for that, and do nothing else.",
        (_UNDO,),
        _EDITED,
    ),
    ("git-3", "git", "Write `discounted` as one product, run the tests, submit.", (_SUBMIT,), (*_EDITED, "test")),
    (
        "git-4",
        "git",
        "Write `discounted` as one product, and submit twice: once to review, once to end.",
        (_SUBMIT,),
        (*_EDITED, "test", "submit"),
    ),
    (
        "tree-1",
        "syntax trees",
        "The method `count_lines` of Cart must be called `size`. Nothing else calls it. Edit it now.",
        (_RENAME,),
        (f"view {_CART}",),
    ),
    (
        "tree-2",
        "syntax trees",
        f"Below the docstring of {_REPORT}, add: from collections import defaultdict. Edit nothing else.",
        (_IMPORT,),
        (f"view {_REPORT}",),
    ),
    ("tree-3", "syntax trees", f"Remove the function `old_discount` from {_PRICES}, and nothing else.", (_DROP,), _SAW_PRICES),
    (
        "tree-4",
        "syntax trees",
        f"The default of `count` in Cart.add ({_CART}) must be 2. Edit it now.",
        (_DEFAULT,),
        (f"view {_CART}",),
    ),
    ("domain-1", "domain", "Read the house rules in docs/rules.md before anything else.", (_view("docs/rules.md"),), ()),
    (
        "domain-2",
        "domain",
        f"Raise MAX_LINES to 80 in {_CONFIG}, where the house keeps its defaults.",
        (_SETTING,),
        (f"view {_CONFIG}",),
    ),
    (
        "domain-3",
        "domain",
        "Find out where RATE is used in the folder shop: search for it there.",
        (_search("RATE", "shop"),),
        ("view docs/rules.md",),
    ),
    (
        "domain-4",
        "domain",
        "See which files the folder shop has, with the tool that lists them.",
        (_turn("map shop", _on("map", "shop")),),
        (),
    ),
    (
        "multi-1",
        "multi-step",
        f"{_THEN} search for `discounted`; then view {_PRICES}.",
        (_search("discounted"), _view(_PRICES)),
        (),
    ),
    (
        "multi-2",
        "multi-step",
        f"{_THEN} view {_CONFIG}; then set MAX_LINES to 80 there; then run all tests.",
        (_view(_CONFIG), _SETTING, _WHOLE),
        (),
    ),
    (
        "multi-3",
        "multi-step",
        f"{_THEN} in {_PRICES} let `discounted` return amount * (1 - percent / 100); then run tests/test_prices.py; then diff.",
        (_DISCOUNT, _test("tests/test_prices.py"), _DIFF),
        _SAW_PRICES,
    ),
    ("multi-4", "multi-step", f"{_THEN} undo the last edit; then view {_PRICES}.", (_UNDO, _view(_PRICES)), _EDITED),
)


def full_exam(toolkit: Toolkit) -> list[Prompt]:
    """The prompts, four of each category, with this toolkit's opening words."""
    return [
        Prompt(
            id=name,
            category=category,
            opening=toolkit.prompt(_task(name, text), Recalled()),
            files=FILES,
            turns=turns,
            done=tuple(map(_fenced, done)),
            tests=_FAILED if name == "multi-4" else TestRun(True, "3 passed"),
        )
        for name, category, text, turns, done in _TABLE
    ]


def _task(name: str, text: str) -> Task:
    return Task(id=f"tool-format-{name}", repo="shop", issue=text, created_at=EPOCH, position=0, difficulty="<15 min fix")
