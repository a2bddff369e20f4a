"""One run of a repository's tests in the sandbox, seen test by test by the witness, not by what the code prints."""

from __future__ import annotations

import json
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.sandbox.base import Limits, Sandbox
from agent.workspace import Workspace
from eval.mining import witness
from eval.mining.environment import Environment
from eval.mining.schema import StreamFile

LIMITS = Limits(seconds=300.0, memory_bytes=4 * 2**30, processes=128, file_bytes=2**29, output_bytes=16 * 2**20)
WITNESS = Path(witness.__file__).resolve()
PASSED, FAILED, SKIPPED, ERROR = "passed", "failed", "skipped", "error"
MAX_TEXT = 200_000
_ROW = TypeAdapter(tuple[str, str, str, bool] | dict[str, list[str]])
_VERSION_FILES = (
    ("tool", "setuptools_scm", "write_to"),
    ("tool", "setuptools_scm", "version_file"),
    ("tool", "hatch", "build", "hooks", "vcs", "version-file"),
)
_PLAIN = re.compile(r"[\w.-]+(/[\w.-]+)*\.py")


def limits_of(file: StreamFile) -> Limits:
    """The limits that a stream's tasks were proven within."""
    seconds = file.metadata.get("seconds_limit")
    return replace(LIMITS, seconds=float(seconds)) if isinstance(seconds, int | float) and seconds > 0 else LIMITS


@dataclass(frozen=True)
class Report:
    """What one run showed.

    `results` maps pytest's test ids to `passed`, `failed`, `skipped` or `error`; a test that is not in it was not
    seen. `output` is what pytest and the tests printed: to be read, never to be believed. `started` is whether pytest
    got as far as its session. `sound` is False if the control, a test that must fail, was not seen to fail.
    `ignored` are options that the repository asks for and that were left out.
    """

    results: Mapping[str, str] = field(default_factory=dict)
    output: str = ""
    code: int = 1
    seconds: float = 0.0
    started: bool = False
    sound: bool = True
    timed_out: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether tests ran, and none of them failed."""
        return self.code == 0 and PASSED in self.results.values() and not self.timed_out

    def lacking(self, tests: Sequence[str]) -> int:
        """How many of these tests were not seen to pass."""
        return sum(self.results.get(test) != PASSED for test in tests)


def run_tests(
    root: Path,
    sandbox: Sandbox,
    environment: Environment,
    targets: Sequence[str] = (),
    limits: Limits = LIMITS,
    version: str = "0.0",
    hidden: Sequence[str] = (),
) -> Report:
    """Run pytest on `targets` (paths or test ids; all tests if there are none) in the tree at `root`.

    Args:
        root: the tree; what the tests write there stays there.
        sandbox: what the tests are run in.
        environment: the interpreter, and how pytest is called.
        targets: below `root`, as pytest names them.
        limits: of the run.
        version: what the package may call itself, as `agent.repositories.pretend_version` says.
        hidden: files that grading has put in place: the code under test sees them read-only, and a control that must
            fail runs among the tests.

    Raises:
        SandboxError: the sandbox itself failed.
    """
    root = root.resolve()
    key, control = secrets.token_hex(16), f"test_{secrets.token_hex(6)}" if hidden else ""
    told_at = root / f".{secrets.token_hex(8)}"
    argv = (str(environment.python), str(WITNESS), str(told_at))
    fixed = tuple(root / path for path in hidden if (root / path).is_file())
    try:
        told_at.write_text(json.dumps({"key": key, **_told(root, environment, targets, version, control)}), encoding="utf-8")
        told_at.chmod(0o600)
        place = Workspace(root, argv, (*environment.mounts, WITNESS, *fixed))
        result = sandbox.run(argv, place, limits)
    finally:
        told_at.unlink(missing_ok=True)
    return _report(result.stdout, key, control, result.timed_out, result.seconds)


def _told(root: Path, environment: Environment, targets: Sequence[str], version: str, control: str) -> dict[str, object]:
    paths = [str(root / "src"), str(root)] if (root / "src").is_dir() else [str(root)]
    there = [name for name in witness.LEFT_OUT if name in environment.plugins]
    plain = ["-pno:cacheprovider", "-q", "--color=no", f"--rootdir={root}"]
    arguments = [*plain, *(witness.QUIET[name] for name in there if name in witness.QUIET), *environment.arguments]
    return {
        "root": str(root),
        "paths": paths,
        "under_test": environment.under_test,
        "variables": {
            "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join(paths),
            "SETUPTOOLS_SCM_PRETEND_VERSION": version,
            **({} if environment.autoload else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        },
        "arguments": [*arguments, "--tb=short", *(["--maxfail=0", "--continue-on-collection-errors"] if control else [])],
        "targets": list(targets),
        "control": control,
        "left_out": [name for name in witness.LEFT_OUT if name not in there],
    }


def _report(said: str, key: str, control: str, timed_out: bool, seconds: float) -> Report:
    """What the witness saw; its line alone has the key, and whatever else was printed counts for nothing."""
    lines = [line for line in said.split("\n") if line.startswith(f"{key} ")]
    output = "\n".join(line for line in said.split("\n") if not line.startswith(f"{key} ")).strip()[-MAX_TEXT:]
    unseen = Report(output=output, timed_out=timed_out, seconds=seconds, sound=False)
    if len(lines) != 1:
        return unseen
    try:
        answer = json.loads(lines[0].removeprefix(f"{key} "))
        rows = [_ROW.validate_json(row) for row in answer["rows"]]
        code = int(answer["code"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return unseen
    began = [row["started"] for row in rows if isinstance(row, dict) and "started" in row]
    seen: dict[str, str] = {}
    called: set[str] = set()
    for test, when, outcome, expected in (row for row in rows if isinstance(row, tuple)):
        worse = _outcome(when, outcome, expected)
        seen[test] = worse if seen.get(test, PASSED) == PASSED else seen[test]
        if when == "call":
            called.add(test)
    results = {test: outcome if outcome != PASSED or test in called else ERROR for test, outcome in seen.items()}
    controls = [test for test in results if control and test.endswith(f"::{control}")]
    sound = not control or (len(controls) == 1 and results[controls[0]] in (FAILED, ERROR))
    for test in controls:
        del results[test]
    return Report(results, output, code, seconds, bool(began), sound, timed_out, tuple(began[0]) if began else ())


def _outcome(when: str, outcome: str, expected: bool) -> str:
    """How one phase counts; what was expected to fail has not passed, whether it did or not."""
    if outcome == PASSED:
        return SKIPPED if expected else PASSED
    return SKIPPED if outcome == SKIPPED else FAILED if when == "call" else ERROR


def prepare(root: Path, version: str) -> None:
    """Write the version files that the repository's build would have made; without them many packages cannot be imported."""
    with suppress(OSError, ValueError, tomllib.TOMLDecodeError):
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        for names in _VERSION_FILES:
            found: object = settings
            for name in names:
                found = found.get(name) if isinstance(found, dict) else None
            if not isinstance(found, str) or not _PLAIN.fullmatch(found) or ".." in found:
                continue
            path = root / found
            inside = path.parent.resolve().is_relative_to(root.resolve())
            if inside and path.parent.is_dir() and not path.is_symlink() and not path.exists():
                parts = tuple(int(part) for part in re.findall(r"\d+", version))
                path.write_text(
                    f'__version__ = version = "{version}"\n__version_tuple__ = version_tuple = {parts!r}\n', encoding="utf-8"
                )


_ADVICE = (
    (r"unrecognized arguments?: (.+)", "install the plugin that knows {0}, or drop it with --tests 'pytest -o addopts='"),
    (r"[Mm]issing required plugins?: (.+)", "install {0} in that Python"),
    (r"Unknown config option: (\S+)", "install the plugin that reads {0}, or allow it with --tests 'pytest -W default'"),
    (r"No module named '?([\w.]+)", "install what provides {0} in that Python"),
    (r"'(\S+)' not found in `markers`", "install the plugin that has the marker {0}"),
    (r"fixture '(\w+)' not found", "install the plugin that has the fixture {0}"),
    (r"requires pytest-(\S+),", "install pytest {0} in that Python"),
    (r"(Network is unreachable|Temporary failure in name resolution|Cannot assign requested address)", "{0}: no network here"),
)


def advice(output: str) -> str:
    """What to do about tests that do not run, as far as pytest's output tells; one printable line, perhaps empty."""
    found: list[str] = []
    for pattern, what in _ADVICE:
        if match := re.search(pattern, output[-MAX_TEXT:]):
            found.append(what.format("".join(c for c in match.group(1).strip()[:80] if c.isprintable())))
    return "; ".join(found[:2])
