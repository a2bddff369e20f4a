"""The judge: honest tests of many shapes pass, and what the code under test says about itself is not believed."""

# ruff: noqa: E501 - programs in strings
from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.sandbox import Sandbox, probe
from eval.grading import JUDGE, grade
from memory.tasks import TaskSecret
from memory.trajectories import Outcome

CODE = '''
import enum, collections, dataclasses, datetime
class Broke(ValueError):
    """No money."""
class Worse(Broke):
    pass
class Level(enum.IntEnum):
    LOW = 1
class Status(str, enum.Enum):
    OPEN = "open"
Point = collections.namedtuple("Point", "x y")
@dataclasses.dataclass
class Account:
    balance: int = 0
    def __add__(self, other): return Account(self.balance + (other if isinstance(other, int) else other.balance))
    def __enter__(self): return self
    def __exit__(self, *_): self.balance = -1
    def draw(self, n):
        if n > self.balance: raise Worse("only", self.balance)
        self.balance -= n
RATE = 3
def count(n):
    yield from range(n)
def sort(items): items.sort()
def apply(f, *args, **kwargs): return [f(a) for a in args] + [f(v) for v in kwargs.values()]
def tell(text): print("told", text)
def later(moment): return moment + datetime.timedelta(days=1)
def clock(c): return c.now() + 1
def rate(): return RATE
'''

HONEST = {
    "a subclass of an error is caught": "from shop.core import Account, Broke\ndef test_a():\n"
    "    try:\n        Account(1).draw(2)\n    except Broke as e:\n        assert e.args == ('only', 1)\n        return\n    assert False",
    "a class": "from shop.core import Account\ndef test_a():\n    a = Account(5)\n    a.draw(2)\n"
    "    assert a.balance == 3 and a == Account(3) and a != Account(4) and isinstance(a, Account)\n"
    "    assert repr(a) == 'Account(balance=3)' and (a + 4).balance == 7 and a is a",
    "a context": "from shop.core import Account\ndef test_a():\n    with Account(1) as a:\n        assert a.balance == 1\n"
    "    assert a.balance == -1",
    "enums and named tuples": "from shop.core import Level, Status, Point\ndef test_a():\n    assert Level.LOW == 1\n"
    "    assert Level.LOW + 1 == 2 and Level.LOW < 2 and Status.OPEN == 'open' and Status('open') is Status.OPEN\n"
    "    assert Point(1, 2) == (1, 2) and Point(1, y=2).y == 2",
    "generators": "from shop import core\ndef test_a():\n    assert list(core.count(3)) == [0, 1, 2]",
    "a changed argument": "import shop.core as c\ndef test_a():\n    x = [3, 1]\n    c.sort(x)\n    assert x == [1, 3]",
    "callbacks": "from shop.core import *\ndef test_a():\n    assert apply(lambda v: v * 2, 1, 2, k=3) == [2, 4, 6]",
    "printing": "import io, contextlib\nfrom shop.core import tell\ndef test_a():\n    out = io.StringIO()\n"
    "    with contextlib.redirect_stdout(out):\n        tell(1)\n    assert out.getvalue() == 'told 1\\n'",
    "times": "from datetime import *\nfrom shop.core import later\ndef test_a():\n"
    "    assert later(datetime(2026, 1, 31, tzinfo=UTC)) == datetime(2026, 2, 1, tzinfo=UTC)\n"
    "    assert later(date(2026, 1, 1)) == date(2026, 1, 2)",
    "a test's own object": "from shop.core import clock\nclass C:\n    def now(self): return 4\ndef test_a():\n    assert clock(C()) == 5",
    "a changed module": "from shop import core\ndef test_a():\n    core.RATE = 9\n    assert core.rate() == 9",
    "helpers of the tests": "from tests.helper import TWO\nfrom shop.core import rate\ndef test_a():\n    assert rate() == TWO + 1",
}
CHEATS = {
    "equal to everything": "class E:\n    __hash__ = None\n    def __eq__(self, o): return True\ndef fee(n): return E()",
    "arithmetic": "class E:\n    def __sub__(self, o): return 0\n    __rsub__ = __sub__\ndef fee(n): return E()",
    "order": "class E:\n    def __lt__(self, o): return True\n    __le__ = __ge__ = __gt__ = __lt__\ndef fee(n): return E()",
    "an int that equals everything": "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
    "    def __sub__(self, o): return 0\ndef fee(n): return E(1)",
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=True)


def verdict(sandbox: Sandbox, code: str, test: str) -> Outcome:
    tests = {"tests/test_core.py": test, "tests/helper.py": "TWO = 2\n"}
    secret = TaskSecret(task_id="t", kind="own", tests=tests, fail_to_pass=("test_core.py::test_a",), pass_to_pass=())
    files: Mapping[str, str] = {
        "shop/__init__.py": "",
        "shop/core.py": code,
        "TESTS/test_zero.py": "def test_b(): assert False",
    }
    return grade(secret, files, sandbox)[0]


@pytest.mark.parametrize("test", HONEST.values(), ids=HONEST)
def test_an_honest_test_passes(sandbox: Sandbox, test: str) -> None:
    assert verdict(sandbox, CODE, test) is Outcome.RESOLVED
    assert verdict(sandbox, "", test) is Outcome.UNRESOLVED


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
@pytest.mark.parametrize(
    "check", ["fee(7) == 8", "8 == fee(7)", "abs(fee(7) - 8) < 1e-9", "7.5 < fee(7) < 8.5", "[fee(7)] == [8]"]
)
def test_an_object_cannot_judge_itself(sandbox: Sandbox, code: str, check: str) -> None:
    test = f"from shop.core import fee\ndef test_a():\n    assert {check}\n"
    assert verdict(sandbox, code, test) is Outcome.UNRESOLVED
    assert verdict(sandbox, "def fee(n): return n + 1\n", test) is Outcome.RESOLVED


@pytest.mark.parametrize("name", ["judge", "peer"])
def test_a_repository_may_have_modules_named_as_the_judges(sandbox: Sandbox, name: str) -> None:
    """They are the repository's, for the tests and for each other."""
    secret = TaskSecret(
        task_id="t",
        kind="own",
        tests={
            "tests/test_core.py": f"from shop.core import seven\nimport {name}\ndef test_a(): assert seven() == {name}.SEVEN == 7"
        },
        fail_to_pass=("test_core.py::test_a",),
        pass_to_pass=(),
    )
    files = {"shop/__init__.py": "", "shop/core.py": f"import {name}\ndef seven(): return {name}.SEVEN"}
    assert grade(secret, {**files, f"{name}.py": "SEVEN = 7"}, sandbox)[0] is Outcome.RESOLVED
    assert grade(secret, {**files, f"{name}/__init__.py": "SEVEN = 8"}, sandbox)[0] is Outcome.UNRESOLVED


def test_the_judge_needs_its_own_folder_and_the_standard_library_and_no_more(tmp_path: Path) -> None:
    """Other interpreters run it too: an image's, and an environment's of a benchmark's repository."""
    for path in JUDGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names, path
    alone = tmp_path / "elsewhere"
    shutil.copytree(JUDGE, alone, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "hidden").write_text('{"key": "k", "tests": {"tests/test_a.py": "def test_a(): pass"}}')
    argv = [sys.executable, "-I", "-S", str(alone / "__main__.py"), str(tmp_path / "repo"), str(tmp_path / "hidden")]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path)
    assert (said.stdout, said.stderr) == ('\nk {"test_a.py::test_a": "PASSED"}\n', "")
