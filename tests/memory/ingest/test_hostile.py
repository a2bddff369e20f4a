"""Files that are not what they should be: none is a crash, all are reported."""

import io
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.ingest import claude_code, mini_swe_agent, swe_agent
from memory.ingest.ingest import MAX_BYTES, read
from memory.ingest.redaction import Redactor
from memory.ingest.sessions import Session, SessionError, Skipped, trajectory_of
from tests.memory.ingest.samples import KEY, claude_lines, mini, write
from tests.memory.ingest.samples import swe_agent as swe_sample

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def malformed(rng: random.Random) -> bytes:
    good = json.dumps(claude_lines()[rng.randrange(4, 16)]).encode()
    return rng.choice(
        [
            lambda: rng.randbytes(rng.randrange(1, 60)).replace(b"\n", b"x").strip() or b"x",
            lambda: good[: rng.randrange(1, len(good))],
            lambda: rng.choice([b"7", b"[]", b'"x"', b"{}", b"true", b"NaN", b'{"type": 7, "uuid": "x"}']),
            lambda: b'{"type":"user","sessionId":"s","message":' + rng.choice([b"7", b"[]", b"{}", b'{"content":7}']) + b"}",
            lambda: b'{"a":' * 300 + b"1" + b"}" * 300,
            lambda: b'{"type":"user","uuid":' + b"9" * 5_000 + b"}",
            lambda: b"\0" * 40,
            lambda: good.replace(b'"type"', b'"\xff\xfe'),
        ]
    )()


def test_ten_thousand_malformed_lines_are_all_reported_and_the_good_ones_between_them_are_read(tmp_path: Path) -> None:
    rng = random.Random(7)
    good = [json.dumps(line).encode() for line in claude_lines()]
    bad = [malformed(rng) for _ in range(10_000)]
    mixed = list(bad)
    for place, line in zip(sorted(rng.sample(range(10_000), len(good))), reversed(good), strict=True):
        mixed.insert(10_000 - place, line)
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\n".join(mixed) + b"\n")
    began = time.monotonic()
    report, found = read(path)
    assert time.monotonic() - began < 20
    assert report.malformed == 10_000
    assert len(report.reasons) == 5
    assert [len(one.steps) for one in found] == [5]
    path.write_bytes(b"\n".join(bad))
    report, found = read(path)
    assert (report.malformed, found) == (10_000, [])
    assert report.problem


@pytest.mark.parametrize("suffix", [".jsonl", ".traj", ".traj.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"trajectory": [1, {"action": 7}]}',
        b"[]",
        b"{}",
    ],
    ids=["empty", "NUL", "no UTF-8", "brackets", "objects", "number", "wrong types", "list", "object"],
)
def test_a_file_of_nothing_sensible_is_a_report(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    report, found = read(path)
    assert not found
    assert report.problem or report.notes


def test_a_line_of_fifty_megabytes_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    lines = [json.dumps(line) for line in claude_lines()]
    path.write_text("\n".join([*lines[:8], '{"type":"user","x":"' + "a" * (50 << 20) + '"}', *lines[8:]]))
    report, found = read(path)
    assert (report.malformed, len(found[0].steps)) == (1, 5)
    assert report.reasons == ["line 9: longer than 16 MiB"]


def test_a_file_over_the_cap_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.traj"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert read(path)[0].problem == "larger than 64 MiB"


def changed(rng: random.Random, value: Any, other: Any) -> Any:
    """`value` with one of its parts, somewhere, replaced by something else, or gone."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return other
    if isinstance(value, dict):
        name = rng.choice(sorted(value))
        return value | {name: changed(rng, value[name], other)}
    place = rng.randrange(len(value))
    return [*value[:place], changed(rng, value[place], other), *value[place + 1 :]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), other=JSON, which=st.sampled_from(["swe-agent", "mini", "old mini"]))
def test_a_session_with_anything_in_any_place_is_read_or_refused(seed: int, other: Any, which: str) -> None:
    sample = {"swe-agent": swe_sample, "mini": mini, "old mini": lambda: mini(None)}[which]()
    value = changed(random.Random(seed), sample, other)
    module: Any = swe_agent if which == "swe-agent" else mini_swe_agent
    try:
        sessions = module.read(value, "stem", Skipped()) if module.is_file(value) else []
    except SessionError:
        return
    for session in sessions:
        stored(session)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), other=JSON)
def test_a_line_with_anything_in_any_place_is_read_or_counted(seed: int, other: Any) -> None:
    lines = changed(random.Random(seed), claude_lines(), other)
    text = "\n".join(json.dumps(line) for line in (lines if isinstance(lines, list) else [lines]))
    for session in claude_code.read(io.BytesIO(text.encode()), Skipped()):
        stored(session)


def stored(session: Session) -> None:
    trajectory_of(session, NOW, "", Redactor()).model_dump_json()


def test_no_secret_survives_in_any_field_of_a_trajectory(tmp_path: Path) -> None:
    swe = swe_sample(f"exit_{KEY}")
    swe["trajectory"][0] |= {"thought": KEY, "observation": KEY, "action": f"curl {KEY}"}
    swe["replay_config"] = {
        "problem_statement": {"text": KEY},
        "agent": {"model": {"name": KEY}},
        "env": {"repo": {"repo_name": KEY}},
    }
    claude = json.loads(json.dumps(claude_lines()).replace("bank", KEY).replace("fees.py", KEY).replace("Read", KEY))
    for path in (write(tmp_path / "x.traj", swe), write(tmp_path / "s.jsonl", claude)):
        report, found = read(path)
        assert found
        assert KEY not in "".join(one.model_dump_json() for one in found)
        assert report.redactions["anthropic-key"] >= 2
