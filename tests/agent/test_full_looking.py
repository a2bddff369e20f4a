"""Map, search, view and test output: what matters first, everything bounded, nothing outside, with ripgrep or without."""

import os
import shutil
import statistics
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import CallError
from agent.full.files import rank, walk
from agent.full.grep import read
from agent.full.map import overview
from agent.full.output import HEAD, MAX_CHARS, TAIL, shortened
from agent.full.search import search
from agent.full.view import view
from agent.repositories import Mirror, checkout
from agent.workspace import Workspace, write_tree

FILES = {
    "shop/fees.py": "import os\n\n\nclass Fee:\n    rate = 1\n\n    def price(self):\n        return total_fee(1)\n\n\n"
    "def total_fee(price):\n    return price\n",
    "shop/cart.py": "from shop.fees import total_fee\n\n\ndef cart():\n    return total_fee(2)\n",
    "shop/vendor/six.py": "total_fee = 1\n",
    "tests/test_fees.py": "from shop.fees import total_fee\n\n\ndef test_it():\n    assert total_fee(1) == 1\n",
    "docs/total_fee.md": "# Total\n\n## The total_fee\n\ntext\n",
    "src/lib.rs": "pub struct Fee {\n}\n\nimpl Fee {\n    pub fn total_fee(&self) -> u32 {\n        1\n    }\n}\n",
    "web/app.ts": "export class App {\n  run() {}\n}\nexport function totalFee() {}\n",
}
RG = shutil.which("rg")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_tree(tmp_path / "w", FILES)
    return Workspace(tmp_path / "w")


# Search


def test_definitions_come_first_then_source_then_tests_and_the_rest(workspace: Workspace) -> None:
    shown = search(workspace, "total_fee").split("\n")
    assert shown[:2] == ["files named so: docs/total_fee.md", "9 lines of 6 files contain it"]
    assert shown[2] == "shop/fees.py:8:         return total_fee(1)"
    order = list(dict.fromkeys(line.split(":")[0] for line in shown[2:]))
    assert order == [
        "shop/fees.py",
        "src/lib.rs",
        "shop/vendor/six.py",
        "shop/cart.py",
        "tests/test_fees.py",
        "docs/total_fee.md",
    ]


@pytest.mark.parametrize(
    ("pattern", "within", "hits", "how"),
    [
        ("return total_fee(", "", 2, "contain it"),
        (r"def \w+_fee\(", "", 1, "match it"),
        ("TOTAL_FEE(PRICE)", "", 1, "in other capitals"),
        ("total_fee", "tests", 2, "contain it"),
        ("total_fee", "./tests/", 2, "contain it"),
        ("total_fee", "shop/fees.py", 2, "contain it"),
        ("import total_fee", "", 2, "contain it"),
        ("(", "src", 1, "contain it"),
    ],
)
def test_a_text_is_tried_before_a_pattern(workspace: Workspace, pattern: str, within: str, hits: int, how: str) -> None:
    shown = search(workspace, pattern, within).split("\n")
    assert how in next(line for line in shown if " of " in line)
    assert sum(line.split(":")[1].isdigit() for line in shown if line.count(":") > 1) == hits


def test_a_text_with_an_in_is_searched_as_a_whole(workspace: Workspace) -> None:
    write_tree(workspace.root, {"a.py": "for x in items:\n    pass\n"})
    assert "a.py:1: for x in items:" in search(workspace, "for x", "items:")
    with pytest.raises(CallError, match=r"no file 'lib/a.py'; there is a.py"):
        search(workspace, "for x", "lib/a.py")


def test_files_are_found_by_name(workspace: Workspace) -> None:
    assert search(workspace, "lib.rs") == "files named so: src/lib.rs"
    assert search(workspace, "tests/test_f") == "files named so: tests/test_fees.py"


def test_nothing_is_told_as_nothing(workspace: Workspace) -> None:
    for pattern in ("no_such_thing", "[", "(?P<x", "\\", "x{9999999999}", "(" * 500):
        with pytest.raises(CallError, match="no match"):
            search(workspace, pattern)


def test_many_hits_are_counted(workspace: Workspace) -> None:
    write_tree(workspace.root, {f"m/{i:03}.py": "needle = 1\n" * 9 for i in range(60)})
    shown = search(workspace, "needle").split("\n")
    assert shown[0] == "540 lines of 60 files contain it"
    assert "m/000.py: 3 more" in shown
    assert shown[-1].startswith("[54 more files: m/006.py 9, ")
    assert len(shown) < 60


@pytest.mark.parametrize("pattern", ["(a+)+$", "^(a?){40}a{40}$"])
def test_a_pattern_cannot_take_for_ever(workspace: Workspace, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.full.search.PATTERN_SECONDS", 1.0)
    write_tree(workspace.root, {"z.txt": "a" * 5_000 + "!\n"})
    began = time.monotonic()
    with pytest.raises(CallError, match="takes too long as a regular expression"):
        search(workspace, pattern)
    write_tree(workspace.root, {"a.py": "aa\n" * 50, "z.txt": "a" * 5_000 + "!\n"})
    if pattern == "(a+)+$":
        assert search(workspace, pattern).startswith("50 lines of 1 file match it [time was up")
    assert time.monotonic() - began < 6


def hostile(root: Path) -> None:
    (root.parent / "secret.txt").write_text("needle of the host\n")
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "up").symlink_to(root.parent)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    (root / "big.txt").write_text("needle\n" * 300_000)
    (root / "binary.bin").write_bytes(b"\0needle\n")
    (root / "-rf.txt").write_text("needle\n")
    (root / "new\nline.txt").write_text("needle\n")
    (root / "a:1: b.txt").write_text("needle\n")
    Path(os.fsdecode(bytes(root) + b"/\xff.txt")).write_text("needle\n")
    (root / "latin.py").write_bytes(b"# caf\xe9 needle\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("needle\n")
    (root / ".rgignore").write_text("*\n")
    (root / "utf16.txt").write_bytes(b"\xff\xfe" + "needle".encode("utf-16-le"))
    deep = root
    for _ in range(60):
        deep = deep / "d"
        deep.mkdir()


def test_only_the_workspace_is_searched(workspace: Workspace) -> None:
    hostile(workspace.root)
    shown = search(workspace, "needle")
    assert [line.split(": ")[0] for line in shown.split("\n")[1:]] == ["latin.py:1", "-rf.txt:1", "a:1"]
    assert "host" not in shown
    assert read(str(workspace.root / "link.txt"), 100) == read(str(workspace.root / "pipe"), 100) == b""
    assert not any("link" in name or "up" in name or ".git/" in name for name in walk(workspace))
    for path in ("../secret.txt", "link.txt", "up", "up/secret.txt", "/etc"):
        for tool in (lambda p: search(workspace, "needle", p), lambda p: view(workspace, p), lambda p: overview(workspace, p)):
            with pytest.raises(CallError) as refused:
                tool(path)
            assert "of the host" not in str(refused.value)


@pytest.mark.skipif(RG is None, reason="ripgrep is not installed")
def test_ripgrep_changes_no_answer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(workspace.root, FILES | {f"m/{i}.py": f"x = {i}\nneedle = Ünder_{i}\n" for i in range(80)})
    hostile(workspace.root)
    asked = [
        "needle",
        "NEEDLE",
        "x = 7",
        "Ünder",
        "ünder_7",
        "k",
        "--files",
        "-e",
        "caf",
        r"needle = \w+_7$",
        "é",
        "a\\b",
        "[x]",
    ]

    def answers() -> list[str]:
        found: list[str] = []
        for pattern in asked:
            for within in ("", "m"):
                try:
                    found.append(search(workspace, pattern, within))
                except CallError as error:
                    found.append(str(error))
        return found

    fast = answers()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert answers() == fast


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=12),
    st.sampled_from(["", "shop", "shop/fees.py", "no", "a/b"]),
)
def test_any_search_has_an_answer(workspace: Workspace, pattern: str, within: str) -> None:
    try:
        told = search(workspace, pattern, within)
    except CallError as error:
        told = str(error)
    assert told


# View


def test_a_window_tells_where_it_stands(workspace: Workspace) -> None:
    assert view(workspace, "shop/fees.py", 8, 9) == (
        "shop/fees.py, lines 8-9 of 12, in `class Fee` (line 4) > `def price(self)` (line 7)\n"
        "8|        return total_fee(1)\n9|\n[3 more lines: view shop/fees.py 10-12]"
    )
    assert view(workspace, "./shop/cart.py").startswith("./shop/cart.py".removeprefix("./") + ", lines 1-5 of 5\n1|from shop")


def test_a_large_file_is_viewed_by_windows(workspace: Workspace) -> None:
    write_tree(
        workspace.root, {"big.py": "".join(f"x{i} = {i}\n" for i in range(1, 10_001)), "wide.txt": ("y" * 2_000 + "\n") * 50}
    )
    first = view(workspace, "big.py")
    assert first.startswith("big.py, lines 1-150 of 10000\n1|x1 = 1\n")
    assert "[9850 more lines: view big.py 151-300]" in first
    assert view(workspace, "big.py", 5_000, 5_000).startswith("big.py, lines 4950-5050 of 10000\n4950|")
    assert view(workspace, "big.py", 9_990, 99_999).endswith("\n10000|x10000 = 10000")
    assert view(workspace, "big.py", 1, 5_000).count("\n") == 301
    wide = view(workspace, "wide.txt")
    assert len(wide) < 13_000
    assert "… [2000 characters]" in wide
    assert "more lines: view wide.txt 2" in wide
    with pytest.raises(CallError, match=r"big\.py has 10000 lines"):
        view(workspace, "big.py", 10_001, 10_002)


def test_what_cannot_be_viewed_is_refused(workspace: Workspace) -> None:
    hostile(workspace.root)
    for path, why in (("binary.bin", "is binary"), ("big.txt", "larger than"), ("pipe", "no file"), ("shop", "map it")):
        with pytest.raises(CallError, match=why):
            view(workspace, path)


# Map


def test_the_map_shows_source_before_the_rest(workspace: Workspace) -> None:
    shown = overview(workspace)
    assert shown.startswith("repository: 7 files (4 .py, ")
    order = [line.split("/")[0] for line in shown.split("\n")[1:] if not line.startswith(" ")]
    assert order.index("shop") < order.index("tests")
    assert "    vendor/ 1" in shown
    assert "shop/fees.py  12 lines: Fee, total_fee" in overview(workspace, "shop")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("shop/fees.py", "shop/fees.py: 12 lines\n4: class Fee\n    price:7\n11: def total_fee"),
        ("src/lib.rs", "src/lib.rs: 8 lines\n1: pub struct Fee\n4: impl Fee\n    pub fn total_fee(&self) -> u32:5"),
        ("web/app.ts", "web/app.ts: 4 lines\n1: export class App\n4: export function totalFee()"),
        ("docs/total_fee.md", "docs/total_fee.md: 5 lines\n1: # Total\n3: ## The total_fee"),
    ],
)
def test_a_file_is_outlined_in_any_language(workspace: Workspace, path: str, told: str) -> None:
    assert overview(workspace, path) == told


def test_an_outline_of_anything_is_bounded(workspace: Workspace) -> None:
    many = "".join(f"class C{i}:\n" + "".join(f"    def m{j}(self): pass\n" for j in range(20)) for i in range(300))
    nested = "".join("    " * i + f"def f{i}():\n" for i in range(90)) + "    " * 90 + "pass\n"
    write_tree(
        workspace.root,
        {"many.py": many, "bad.py": "class A:\n  def (:\n" * 9_000, "nested.py": nested, "flat.py": "def f(): pass\n" * 20_000},
    )
    for path in ("many.py", "bad.py", "nested.py", "flat.py"):
        assert len(overview(workspace, path)) < 11_000
    assert "deeper parts are not shown" in overview(workspace, "many.py")


def test_ranks_keep_what_others_wrote_last() -> None:
    assert [
        rank(p) for p in ("a/b.py", "a/tests/b.py", "test_b.py", "doc/a.rst", "vendor/a.py", "x.min.js", "poetry.lock")
    ] == [0, 1, 1, 2, 3, 3, 3]


# Test output


def test_short_output_is_whole() -> None:
    assert shortened("1 passed\n\n") == "1 passed"


def test_the_failing_part_is_kept() -> None:
    passing = [f"tests/test_a.py::test_{i} PASSED" for i in range(3_000)]
    section = [
        "___ test_bad ___",
        "",
        "    def test_bad():",
        "        value = f(3)",
        ">       assert value == 4",
        "E       assert 3 == 4",
        "",
        "tests/test_a.py:7: AssertionError",
    ]
    text = "\n".join(
        [
            "=== session starts ===",
            *passing,
            *section,
            *["captured log line"] * 3_000,
            "FAILED tests/test_a.py::test_bad - assert 3 == 4",
            "=== 1 failed ===",
        ]
    )
    shown = shortened(text)
    assert len(shown) < MAX_CHARS + 500
    for line in (*section, "=== session starts ===", "=== 1 failed ===", "FAILED tests/test_a.py::test_bad - assert 3 == 4"):
        assert line in shown.split("\n")
    assert "lines]" in shown


def test_the_first_failures_are_kept_of_very_many() -> None:
    block = (
        "FAIL: test_{0} (app.tests.T)\n"
        + "-" * 70
        + '\nTraceback (most recent call last):\n  File "t.py", line {0}, in test\nAssertionError: {0}\n'
    )
    shown = shortened("\n".join(block.format(i) for i in range(500)) + "\nFAILED (failures=500)")
    assert "FAIL: test_0 " in shown
    assert "AssertionError: 0\n" in shown
    assert shown.endswith("FAILED (failures=500)")
    assert len(shown) < MAX_CHARS + 2_000


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["", "x" * 90, "E   x", "FAILED a", "Traceback (most recent call last):", "y" * 3_000]), max_size=300
    )
)
def test_any_output_is_bounded_and_keeps_both_ends(lines: list[str]) -> None:
    text = "\n".join(lines).rstrip()
    shown = shortened(text).split("\n")
    assert sum(map(len, shown)) < MAX_CHARS + 400 * (HEAD + TAIL) + 2_000
    given_lines = text.split("\n")
    assert shown[0][:90] == given_lines[0][:90]
    assert shown[-1][:90] == given_lines[-1][:90]


# Real trees


@pytest.mark.real_repos
@pytest.mark.parametrize(
    ("repo", "folder", "path", "text"),
    [
        ("sympy/sympy", "sympy/core", "sympy/core/expr.py", "as_coeff_Mul"),
        ("django/django", "django/db/models", "django/db/models/query.py", "select_related"),
    ],
)
def test_looking_at_large_repositories_takes_no_time(tmp_path: Path, repo: str, folder: str, path: str, text: str) -> None:
    place = Path(os.environ.get("SLEEPY_MIRRORS", "missing"))
    owner, name = repo.split("/")
    found = [
        p
        for o in (owner, "swe-bench")
        for p in (place / f"{o}__{name}.git", place / f"{o}+{name}" / "repo", place / f"{o}+{owner}__{name}" / "repo")
        if p.exists()
    ]
    if not found:
        pytest.skip("no mirror: set SLEEPY_MIRRORS to a folder of mirrors")
    workspace = Workspace(checkout(Mirror(found[0]), "HEAD", tmp_path / "w").root)
    looks = {
        "map": lambda: overview(workspace),
        "map folder": lambda: overview(workspace, folder),
        "map file": lambda: overview(workspace, path),
        "view": lambda: view(workspace, path, 500, 600),
        "search": lambda: search(workspace, text),
    }
    for look, call in looks.items():
        times = []
        for _ in range(3):
            began = time.monotonic()
            assert 100 < len(call()) < 16_000
            times.append(time.monotonic() - began)
        assert statistics.median(times) < 2.0, look
