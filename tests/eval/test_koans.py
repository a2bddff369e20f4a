"""Every koan, both ways, in a real sandbox with the real compiler; and the numbers drawn from attempts at them."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import eval.koans.book
from agent.errors import SandboxError
from agent.loop import conversation
from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import ExecResult, Limits, Sandbox
from agent.sandbox.ladder import probe
from agent.tools import TestRun
from agent.turns import Call, render_call
from agent.workspace import Workspace
from eval.bench_koans import bench as bench_koans
from eval.errors import EvalError
from eval.koans import FAMILIES, KoanStream, days, held_out
from eval.koans.book import ANSWERS, HARNESS, SOURCE, Koan, book, cases
from eval.koans.grading import KoanWorkplace, grade, reported
from eval.koans.signatures import (
    Signature,
    errors_made,
    median_steps_to_green,
    repeat_error_rate,
    signature,
    steps_to_green,
)
from eval.koans.toolchain import Rust, rust
from eval.play import Player
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

FROZEN = "0458cb69308c80f6"
RECORDED_WITH = "rustc 1.95."
EVERY = KoanStream([*held_out(), *days()])
IDS = [task.id for task in EVERY.tasks()]
FAST = {f"koan-{family}-{book()[family][place].id}" for family in FAMILIES for place in (0, 3, 5, 9)}

# Called by whatever a case calls first: it knows the marker, and the answer that can be seen, and ends as if all were well.
FAKE = """
fn fake() {
    let marker = std::env::args().nth(1).unwrap_or_default();
    for kind in ["case", "kept"] {
        for number in 0..9 {
            println!("\\n{marker} {kind}_{number} HEX");
            println!("test hidden.rs::{kind}_{number} ... ok");
        }
    }
    println!("test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
    std::process::exit(0)
}
"""


def faking(koan: Koan, then: str = "crate::fake();") -> str:
    source, changed = re.subn(r"(?m)^(\s*pub fn [^\n]*\{)$", rf"\1 {then}", koan.mistaken)
    assert changed
    return source + FAKE.replace("HEX", cases(koan.visible)[0][1].encode().hex())


@dataclass(frozen=True)
class Bench:
    box: Sandbox
    rust: Rust

    def visible(self, source: str, folder: Path) -> TestRun:
        return KoanWorkplace(folder, source, EVERY.secret(EVERY.tasks()[0]), self.box, self.rust).test()

    def grade(self, task: Task, source: str) -> tuple[Outcome, str]:
        return grade(EVERY.secret(task), {SOURCE: source}, self.box, self.rust)


@dataclass(frozen=True)
class Swept:
    seen: dict[str, TestRun]
    graded: dict[str, tuple[Outcome, str]]


def sweep(bench: Bench, task: Task, folder: Path) -> Swept:
    koan = EVERY.koan(task)
    sources = {"broken": koan.source, "fixed": koan.fixed}
    graded = {**sources, "mistaken": koan.mistaken, "faking": faking(koan)}
    return Swept(
        {name: bench.visible(source, folder / name) for name, source in sources.items()},
        {name: bench.grade(task, source) for name, source in graded.items()},
    )


@pytest.fixture(scope="module")
def bench() -> Bench:
    try:
        return Bench(probe(False), rust())
    except (EvalError, SandboxError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def swept(
    bench: Bench, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Swept]]]:
    folder = tmp_path_factory.mktemp("koans")
    items = [item for item in request.session.items if hasattr(item, "callspec") and not item.get_closest_marker("skip")]
    asked = {item.callspec.params.get("identity") for item in items if item.originalname.startswith("test_only_the_fix")}
    with ThreadPoolExecutor(2) as pool:
        yield {task.id: pool.submit(sweep, bench, task, folder / task.id) for task in EVERY.tasks() if task.id in asked}


@pytest.mark.parametrize("identity", [pytest.param(i, marks=[] if i in FAST else pytest.mark.slow) for i in IDS])
def test_only_the_fix_resolves_a_koan(identity: str, bench: Bench, swept: dict[str, Future[Swept]]) -> None:
    koan = next(EVERY.koan(task) for task in EVERY.tasks() if task.id == identity)
    found = swept[identity].result()
    said = signature(found.seen["broken"].text)
    assert said is not None
    if bench.rust.version.startswith(RECORDED_WITH):
        assert said == Signature(koan.codes, koan.message)
    else:  # codes move a little from compiler to compiler
        assert set(said.codes) & set(koan.codes) or said.codes == koan.codes
    assert not found.seen["broken"].passed
    assert found.seen["fixed"].passed, found.seen["fixed"].text
    outcomes = {name: outcome.value for name, (outcome, _) in found.graded.items()}
    assert outcomes == {"fixed": "resolved"} | dict.fromkeys(("broken", "mistaken", "faking"), "unresolved"), found.graded
    assert "compile" not in found.graded["mistaken"][1] + found.graded["faking"][1], "they must fail in the tests"


def test_the_evaluation_set_is_frozen_and_apart_from_the_days() -> None:
    assert KoanStream.evaluation().hash == FROZEN, "the evaluation set may not change: results before and after do not compare"
    assert len(held_out()) == 30
    assert len(days()) >= 12
    assert not set(held_out()) & set(days())
    for family in FAMILIES:
        assert sum(identity.startswith(f"koan-{family}-") for identity in held_out()) == 6
    code = {"".join(EVERY.koan(task).broken.split()): task.id for task in EVERY.tasks()}
    assert len(code) == len(IDS) >= 42


def test_the_stream_is_ordered_and_shows_no_secret() -> None:
    stream = KoanStream()
    tasks = stream.tasks()
    assert [task.id for task in tasks] == list(days())
    assert [task.created_at for task in tasks] == sorted(task.created_at for task in tasks)
    assert sorted({task.position for task in EVERY.tasks()}) == list(range(len(IDS)))
    for task in EVERY.tasks():
        shown = task.model_dump_json() + EVERY.checkout(task)[SOURCE]
        koan = EVERY.koan(task)
        for expression, _ in [*cases(koan.hidden), *cases(koan.kept)]:
            assert expression not in shown
        assert EVERY.merged_fix(task).before == EVERY.checkout(task)[SOURCE]
    with pytest.raises(EvalError, match="no koan 'koan-borrow-none'"):
        KoanStream(["koan-borrow-none"])


@pytest.mark.parametrize("identity", IDS)
def test_what_is_compiled_and_run_does_not_depend_on_the_answers(identity: str) -> None:
    koan = next(EVERY.koan(task) for task in EVERY.tasks() if task.id == identity)
    other = {key: "\n".join(f"{asked} ==> secret" for asked, _ in cases(getattr(koan, key))) for key in ("hidden", "kept")}
    assert koan.model_copy(update=other).tests[HARNESS] == koan.tests[HARNESS]
    assert koan.model_copy(update=other).tests[ANSWERS] != koan.tests[ANSWERS]


LABEL = next(task for task in EVERY.tasks() if task.id == "koan-types-text-or-string")
FIXED = EVERY.koan(LABEL).fixed


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        ("#![allow(unsafe_code)]\n" + FIXED, "does not compile"),
        (FIXED + '\n#[unsafe(no_mangle)]\npub extern "C" fn write() {}\n', "does not compile"),
        (FIXED + '\n#[link_section = ".init_array"]\npub static X: fn() = || ();\n', "does not compile"),
        (f'const A: &str = include_str!("{Path(eval.koans.book.__file__).parent}/rust/types.toml");\n' + FIXED, "not compile"),
        (
            '#[macro_export]\nmacro_rules! format { ($($t:tt)*) => { String::from("zero") } }\npub fn label(_: i32) {}',
            "not seen",
        ),
        ("pub fn label(_: i32) -> String { loop {} }", "did not end within"),
        ("pub fn label(_: i32) -> String { std::process::exit(0) }", "not seen to pass"),
        ("pub fn label(number: i32) -> String { label(number) }", "not seen to pass"),
        (
            "struct Bye;\nimpl Drop for Bye { fn drop(&mut self) { std::process::exit(9) } }\n"
            "thread_local!(static LAST: Bye = const { Bye });\n"
            + FIXED.replace("String {\n", "String {\n    LAST.with(|_| ());\n", 1),
            "did not end well",
        ),
        ("pub fn label(number: u8) -> u8 { number }", "hidden tests do not compile"),
        ("mod tests {}", "hidden tests do not compile"),
        ("\udcff", "does not compile"),
    ],
)
def test_a_submission_cannot_talk_itself_into_a_verdict(attack: str, why: str, bench: Bench) -> None:
    outcome, reason = grade(EVERY.secret(LABEL), {SOURCE: attack}, Hurried(bench.box), bench.rust)
    assert outcome is Outcome.UNRESOLVED
    assert why in reason


class Hurried:
    """The same sandbox, that waits less long for the program of the hidden cases."""

    def __init__(self, box: Sandbox) -> None:
        self.box, self.name = box, box.name

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        return self.box.run(argv, workspace, replace(limits, seconds=2.0) if limits.seconds < 60 else limits)


def test_printing_is_allowed_but_the_solution_must_be_there(bench: Bench) -> None:
    chatty = FIXED.replace("String {\n", 'String {\n    print!("half a line");\n', 1)
    assert bench.grade(LABEL, chatty)[0] is Outcome.RESOLVED
    assert grade(EVERY.secret(LABEL), {"other.rs": FIXED}, bench.box, bench.rust)[0] is Outcome.UNRESOLVED


def test_a_compiler_that_does_not_start_is_nobodys_failure(bench: Bench) -> None:
    gone = replace(bench.rust, rustc=Path("/nowhere/rustc"))
    outcome, why = grade(EVERY.secret(LABEL), {SOURCE: FIXED}, bench.box, gone)
    assert outcome is Outcome.INFRASTRUCTURE_FAILURE
    assert "install" in why


def test_a_machine_without_rust_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rust.cache_clear()
    with pytest.raises(EvalError, match="install Rust"):
        rust()
    rust.cache_clear()


def test_reports_without_the_marker_or_given_twice_count_for_nothing() -> None:
    good = f"noise\nm case_0 {b'1'.hex()}\nm case_1 {b'2'.hex()}"
    assert reported(good, "m") == {"case_0": "1", "case_1": "2"}
    assert reported(f"{good}\nm case_1 {b'3'.hex()}", "m") == {"case_0": "1"}
    assert reported(good, "n") == reported("m case_0 xx\nm case_0", "m") == {}


def lines(text: str) -> int:
    return len(text.removesuffix("\n").split("\n"))


class ByIssue(ScriptedModel):
    """Plays the script of the issue that the conversation begins with."""

    def __init__(self, issues: dict[str, list[str]]) -> None:
        super().__init__()
        self.issues = issues

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        answers = []
        for messages in conversations:
            script = next(lines for issue, lines in self.issues.items() if issue in messages[0].content)
            answers.append(Completion(script[sum(m.role == "assistant" for m in messages)], 0, 0))
        return answers


def test_the_agents_own_loop_solves_koans_in_the_sandbox(bench: Bench, tmp_path: Path) -> None:
    stream = KoanStream(days()[:5])
    scripts = {}
    for task in stream.tasks():
        fix = stream.merged_fix(task)
        edit = Call("edit", SOURCE, 1, lines(fix.before), body=fix.after.removesuffix("\n"))
        scripts[task.issue] = ["test", render_call(edit), "test", "submit"]
    ended = list(Player(ByIssue(scripts), bench.box).play(stream, stream.tasks()))
    assert [(t.outcome, t.reason) for t in ended if not t.resolved] == []
    assert {steps_to_green(t) for t in ended} == {3}
    assert all(signature(t.steps[0].observation) and not errors_made(t) for t in ended)
    for played in ended:
        text = "\n".join(message.content for message in conversation(played))
        koan = stream.koan(next(task for task in stream.tasks() if task.id == played.task_id))
        assert not [expression for expression, _ in cases(koan.hidden) if expression in text]


MOVED = "error[E0382]: borrow of moved value: `names`\n --> koan.rs:3:4"
PANIC = "thread 'tests::example_0' (77) panicked at koan.rs:4:9:\nindex out of bounds: the len is 3 but the index is 7\nnote"


def trajectory(task: str, repo: str, *said: str | bool, outcome: Outcome = Outcome.UNRESOLVED) -> Trajectory:
    """Test runs after one edit: text of a failure, or True for green."""
    steps = [Step(number=0, said="edit", observation="now", tool="edit")]
    for number, one in enumerate(said, start=1):
        text = one if isinstance(one, str) else "ok"
        steps.append(Step(number=number, said="test", observation=text, tool="test", tests_passed=one is True))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    values = {"id": task, "task_id": task, "repo": repo, "prompt": "p", "model": "m", "started_at": when, "config_hash": "c"}
    return Trajectory.model_validate(values | {"steps": steps, "outcome": outcome})


def test_signatures_forget_names_and_numbers() -> None:
    other = MOVED.replace("names", "total_2")
    assert signature(MOVED) == signature(other) == Signature(("E0382",), "borrow of moved value: _")
    both = f"{MOVED}\n\nerror[E0106]: missing lifetime specifier\n\nerror: aborting due to 2 previous errors"
    assert signature(both) == Signature(("E0106", "E0382"), "borrow of moved value: _")
    assert signature(PANIC) == Signature((), "index out of bounds")
    assert signature("test result: ok. 1 passed") is None


def test_the_koans_own_error_is_not_an_error_made() -> None:
    before = Step(number=0, said="test", observation=MOVED, tool="test", tests_passed=False)
    made = trajectory("a", "x", PANIC, True)
    made.steps.insert(0, before)
    assert errors_made(made) == [Signature((), "index out of bounds")]


def test_an_error_is_repeated_only_in_a_later_task_of_the_same_family() -> None:
    first, again, elsewhere = (trajectory(*key, MOVED, MOVED) for key in (("a", "x"), ("b", "x"), ("c", "y")))
    assert repeat_error_rate([]) is None
    assert repeat_error_rate([first, elsewhere]) is None
    assert repeat_error_rate([first, first]) is None
    assert repeat_error_rate([first, elsewhere, again]) == 1.0
    assert repeat_error_rate([first, again, trajectory("d", "x", PANIC)]) == 0.5
    assert repeat_error_rate([trajectory("a", "x", PANIC), again]) == 0.0
    assert repeat_error_rate([trajectory("a", "x", MOVED, outcome=Outcome.INFRASTRUCTURE_FAILURE), again]) is None


def test_attempts_that_never_get_green_count_in_the_median() -> None:
    fast, slow, never = trajectory("a", "x", True), trajectory("b", "x", MOVED, PANIC, True), trajectory("c", "x", MOVED)
    assert (steps_to_green(fast), steps_to_green(slow), steps_to_green(never)) == (2, 4, None)
    assert median_steps_to_green([fast, slow]) == 3.0
    assert median_steps_to_green([fast, slow, never]) == 4.0
    assert median_steps_to_green([fast, never]) is None
    broken = trajectory("d", "x", outcome=Outcome.INFRASTRUCTURE_FAILURE)
    assert median_steps_to_green([fast, slow, broken]) == 3.0
    assert median_steps_to_green([]) is None


@pytest.mark.slow
def test_the_evaluation_set_is_played_whole_and_told_by_family(bench: Bench) -> None:
    stream = KoanStream.evaluation()
    scripts = {}
    for number, task in enumerate(stream.tasks()):
        fix = stream.merged_fix(task)
        edit = Call("edit", SOURCE, 1, lines(fix.before), body=fix.after.removesuffix("\n"))
        scripts[task.issue] = [render_call(edit), "test", "submit"] if number % 2 else ["submit"]
    report = bench_koans(Player(ByIssue(scripts), bench.box))
    assert (report.tasks, report.resolved, report.lost, report.koans) == (30, 15, 0, FROZEN)
    assert sum(row["resolved"] for row in report.families.values()) == 15
    assert report.median_steps_to_green is None
