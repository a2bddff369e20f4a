"""Redaction: planted secrets never survive, ordinary text does, and hostile text takes no time."""

import base64
import json
import random
import string
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.ingest.entropy import high_entropy
from memory.ingest.redaction import LONGEST, Redactor
from memory.trajectories import Trajectory
from tests.memory.ingest.samples import KEY

ROOT = Path(__file__).parents[3]
ALNUM = string.ascii_letters + string.digits
TEXT = (ROOT / "memory" / "tasks.py").read_text(encoding="utf-8")


def drawn(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choices(alphabet, k=length))


def planted(rng: random.Random) -> dict[str, tuple[str, str]]:
    """By kind, a text with a secret in it, and the secret itself. None is a valid key of anybody's."""
    a = drawn(rng, ALNUM, 40)
    mixed = "aB3" + a  # what keys have in common
    word = rng.choice(["correcthorse", "hunter2hunter2", "Tr0ub4dor", "geheim!77"])
    lines = [base64.b64encode(rng.randbytes(48)).decode() for _ in range(4)]
    block = "\n".join(lines)
    return {
        "private key": (f"-----BEGIN RSA PRIVATE KEY-----\n{block}\n-----END RSA PRIVATE KEY-----", lines[2]),
        "private key without end": (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{block}", lines[3]),
        "private key without beginning": (f"{block}\n-----END PRIVATE KEY-----", lines[0]),
        "private key in JSON": (
            json.dumps({"key": f"-----BEGIN PRIVATE KEY-----\n{block}\n-----END PRIVATE KEY-----"}),
            lines[1],
        ),
        "bearer": (f"Authorization: Bearer {a[:24]}7", a[:24]),
        "basic": (
            f"authorization: Basic {base64.b64encode(b'me:' + word.encode()).decode()}",
            base64.b64encode(b"me:" + word.encode()).decode(),
        ),
        "url": (f"postgres://admin:{word}@db.internal:5432/x", word),
        "aws id": ("AKIA" + drawn(rng, string.ascii_uppercase + string.digits, 16),) * 2,
        "aws secret": (f'aws_secret_access_key = "{a}"', a),
        "github": ("ghp_" + a[:36],) * 2,
        "slack": (f"xoxb-{drawn(rng, string.digits, 11)}-{a[:24]}",) * 2,
        "openai": (f"sk-proj-{mixed}",) * 2,
        "anthropic": (f"sk-ant-api03-{mixed}",) * 2,
        "google": (f"AIza{a[:35]}",) * 2,
        "jwt": (f"eyJ{a[:20]}.eyJ{a[5:30]}.{a[10:38]}", a[10:38]),
        "env": (f"DB_PASSWORD={word}", word),
        "export": (f"export ACME_API_KEY='{word}'", word),
        "yaml": (f"\n  api_token: {word}9\n", f"{word}9"),
        "json": (f'{{"client_secret": "{word}"}}', word),
        "written out json": (json.dumps(json.dumps({"password": word})), word),
        "flag": (f"deploy --password {word}", word),
        "curl": (f"curl -u admin:{word} localhost", word),
        "email": (f"ada.{a[:6]}@acme.io", f"ada.{a[:6]}@acme"),
        "home": (f"/home/ada{a[:6]}/code/x.py", f"ada{a[:6]}"),
        "base64": (base64.b64encode(rng.randbytes(33)).decode(),) * 2,
        "url-safe base64": (base64.urlsafe_b64encode(rng.randbytes(33)).decode(),) * 2,
        "hexadecimal": (rng.randbytes(20).hex(),) * 2,
    }


KINDS = tuple(planted(random.Random(0)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), place=st.integers(0, len(TEXT)), glue=st.sampled_from([" ", "\n", "\t"]))
def test_a_planted_secret_never_survives_and_twice_changes_nothing(kind: str, seed: int, place: int, glue: str) -> None:
    text, secret = planted(random.Random(seed))[kind]
    redactor = Redactor()
    clean = redactor.text(TEXT[:place] + glue + text + glue + TEXT[place:])
    assert secret not in clean, clean[max(0, place - 80) : place + 200]
    assert redactor.counts.total() >= 1
    assert Redactor().text(clean) == clean


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("aZ09 _-=:/.@'\"\\\n[]{}$") | st.characters(), max_size=200) | st.text())
def test_any_text_is_taken_and_a_second_time_changes_nothing(text: str) -> None:
    clean = Redactor().text(text)
    assert Redactor().text(clean) == clean
    bounded = Redactor().bounded(text)
    Trajectory.model_validate(
        {
            "id": "x",
            "task_id": "x",
            "repo": "x",
            "prompt": bounded,
            "model": "x",
            "started_at": "2026-01-01T00:00:00Z",
            "config_hash": "x",
        }
    ).model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b\nMerge: 3f786850e38 89e6c98d9288",
        "Updating 3f786850e387550fdab836ed7e6dc881de23001b..89e6c98d92887913cadf06b2adb97f26cde4849b",
        "89e6c98d92887913cadf06b2adb97f26cde4849b\trefs/heads/main",
        '"integrity": "sha512-v2kDEe57lecTulaDIuNTPy3Ry4gLGJ6Z1O3vE1krgXZNrsQ+LFTGHVxVjcXPs17LhbZVGedAJv8XZ1tvj5FvSg=="',
        'checksum = "aaf0adf1b4a2a5b1a2b4a3f9f3e1b1bb7f6d8a7c3f0d3c9a9a4b3c2d1e0f9a8b"',
        'hash = "sha256:aaf0adf1b4a2a5b1a2b4a3f9f3e1b1bb7f6d8a7c3f0d3c9a9a4b3c2d1e0f9a8b"',
        "golang.org/x/sys v0.1.0 h1:kunALQeHf1/185U1i0GOB/fy1IPRDDpuoOOqRReG57U=",
        "aaf0adf1b4a2a5b1a2b4a3f9f3e1b1bb7f6d8a7c3f0d3c9a9a4b3c2d1e0f9a8b  dist/wheel.whl",
        "HEAD is now at 3f786850e387550fdab836ed7e6dc881de23001b\nFrom 3f786850e387550fdab836ed7e6dc881de23001b Mon Sep 17",
        "checkout: moving from 3f786850e387550fdab836ed7e6dc881de23001b to 89e6c98d92887913cadf06b2adb97f26cde4849b",
        "  integrity sha1-q8Zx3LmN0vB7tYp2RkWd5HsJ9Ea=\nx/y.py,sha256=kunALQeHf1_185U1i0GOB_fy1IPRDDpuoOOqRReG57U,12",
        "  checksum: 10c0/aaf0adf1b4a2a5b1a2b4a3f9f3e1b1bb7f6d8a7c3f0d3c9a9a4b3c2d1e0f9a8b",
        "session 5f0c7e1a-0b1c-4d2e-8f3a-0123456789ab",
        '  File "/usr/lib/python3.11/site-packages/django/db/models/fields/related_descriptors.py", line 1234, in __get__',
        "tests/functional/m/missing/test_missing_kwoa_2_args_3_kwargs.py::TestBase64HighEntropy::test_utf8_to_latin1_v2 PASSED",
        'token = model.next_token()\npassword: str\nAPI_KEY = os.environ["API_KEY"]\nMAX_TOKENS=4096\nf(secret=self.secret)',
        "git clone git@github.com:acme/bank.git; pip install lodash@4.17.21; mail ada@example.org\\n@pytest.fixture",
        "2024-01-15T10:23:45.123456Z 20240115102345 0.123456789012345678901234567890",
        "usage: deploy [--token TOKEN] --password <password>",
    ],
)
def test_what_coding_sessions_are_full_of_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text


GIT = ("to", "from", "at", "HEAD", "commit", "ref:", "was at", "moving to", "Updating", "From", "sha1", "tree", "3f786850e38")


@pytest.mark.parametrize("word", [*GIT, "hash:", "digest =", "sha256", "md5:"])
def test_a_word_of_gits_or_of_a_checksums_excuses_nothing_that_has_not_the_shape_of_one(word: str) -> None:
    rng = random.Random(3)
    for secret in ("q8Zx3LmN0vB7tYp2RkWd5HsJ", "Zq8" + drawn(rng, ALNUM, 37), rng.randbytes(12).hex(), rng.randbytes(17).hex()):
        assert secret not in Redactor().text(f"I changed the login {word} {secret}")


@pytest.mark.parametrize("word", ["to", "from", "at"])
def test_a_word_of_everybodys_is_no_word_of_gits(word: str) -> None:
    secret = random.Random(4).randbytes(20).hex()
    assert secret not in Redactor().text(f"I changed the login {word} {secret}")


@pytest.mark.parametrize("word", ["checksum:", "integrity=", "h1:", "sha512-"])
def test_a_checksum_in_base64_has_the_length_of_one(word: str) -> None:
    assert "q8Zx3LmN0vB7" not in Redactor().text(f"{word}q8Zx3LmN0vB7tYp2RkWd5HsJ")


@pytest.mark.parametrize(
    ("alphabet", "length", "missed"),
    [
        (ALNUM + "+/", 24, 0.05),
        (ALNUM + "+/", 32, 0.02),
        (ALNUM + "+/", 44, 0.01),
        ("0123456789abcdef", 32, 0.001),
        (string.ascii_lowercase + string.digits, 24, 0.14),
        (string.ascii_lowercase + string.digits, 40, 0.08),
        (string.ascii_uppercase + "234567", 32, 0.40),
    ],
)
def test_of_strings_drawn_at_random_no_more_pass_than_the_document_says(alphabet: str, length: int, missed: float) -> None:
    rng = random.Random(1)
    assert sum(not high_entropy(drawn(rng, alphabet, length)) for _ in range(4_000)) <= 4_000 * missed


def test_fewer_than_one_line_in_two_hundred_of_our_own_sources_is_changed() -> None:
    names = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.toml"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    changed = lines = 0
    ours = [name for name in names.split() if "redaction" not in name]  # whose tests are full of what must be changed
    for name in ours[::4]:
        before = (ROOT / name).read_text(encoding="utf-8")
        pairs = list(zip(before.split("\n"), Redactor().text(before).split("\n"), strict=False))
        lines, changed = lines + len(pairs), changed + sum(a != b for a, b in pairs)
    assert lines > 5_000
    assert changed < lines / 200


NASTY = ("a", "aB3", "://", "://:", "eyJa.", "sk-", "@a.", "password=", "'", '"token" == ', "KEY=", "A" * 40 + "\n")


@pytest.mark.parametrize("unit", NASTY)
def test_hostile_text_takes_no_time(unit: str) -> None:
    began = time.monotonic()
    assert len(Redactor().bounded((unit * 200_000)[:200_000])) <= LONGEST
    assert time.monotonic() - began < 8  # a hundredth of what a backtracking pattern would take


def test_a_secret_across_the_cut_leaves_nothing() -> None:
    block = "\n".join(base64.b64encode(random.Random(n).randbytes(48)).decode() for n in range(2_000))
    clean = Redactor().bounded(f"before\n-----BEGIN PRIVATE KEY-----\n{block}\n-----END PRIVATE KEY-----\nafter")
    assert not set(block.split("\n")) & set(clean.split("\n"))
    assert clean.startswith("before\n[redacted:private-key]")
    assert clean.endswith("after")


def test_arguments_are_redacted_by_name_and_by_content_and_stay_json() -> None:
    value = {"password": "abcd", "n": 7, "big": 10**30, "inf": float("inf"), "deep": [{"text": f"x {KEY}"}], "\ud800": None}
    clean = Redactor().value(value)
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False)
    assert "abcd" not in text
    assert KEY not in text
    assert json.loads(text)["n"] == 7
    text.encode()
