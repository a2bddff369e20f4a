"""The full protocol: any text is a call or a correction; every call survives being written down, as text and as arguments."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import CallError
from agent.toolset import FULL_TOOLS
from agent.turns import MAX_TURN_CHARS, TOOLS, Call, arguments_of, call_of, parse_full, read_full, render_full

NAMES = [tool.name for tool in FULL_TOOLS]
ODD = [
    "```",
    "````",
    "```python",
    "=>",
    "==>",
    "===>",
    "",
    "  ",
    "\t",
    "view a.py",
    "submit",
    "<think>",
    "</think>",
    "\r",
    "\udc80",
    '{"name": ',
    '{"name": "view", "arguments": {"path": "a.py"}}',
]
LINE = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_characters="\n"), max_size=20))
BODY = st.lists(LINE, max_size=6).map("\n".join)
WORD = st.one_of(
    st.sampled_from(
        ["a.py", "in", "x in y", "a b", "a  b", '"q"', '"', "3-4", "7", "=>", "`", " in ", "a in", "in a", "src/ü.py"]
    ),
    st.text(min_size=1, max_size=12),
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "path": WORD,
        "pattern": WORD,
        "old": BODY,
        "new": BODY,
        "text": BODY,
        "start": st.integers(0, 60),
        "end": st.integers(0, 60),
        "targets": st.lists(WORD, max_size=3),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(NAMES), arguments=ARGUMENTS)
@example("edit", {"path": "a.py", "old": "x\n=>\n==>\ny", "new": "=>\n\n"})
@example("edit", {"path": "3-4", "old": "\n\nx\n\n", "new": "\n\n"})
@example("edit", {"path": "a b ==>", "start": 3, "end": 3, "new": "```\nview a.py\n```"})
@example("create", {"path": "README.md", "text": "# a\n\n````\n```python\nx\n```\n````\n"})
@example("create", {"path": "a.txt", "text": "x\r\r\ny\r"})
@example("search", {"pattern": '"a" in b', "path": "c d"})
@example("search", {"pattern": "  def f", "path": "a in b"})
@example("test", {"targets": ["t.py::test_a[x y]", "```"]})
def test_every_call_survives_text_and_arguments(name: str, arguments: dict[str, object]) -> None:
    tool = next(tool for tool in FULL_TOOLS if tool.name == name)
    try:
        call = call_of(name, {key: value for key, value in arguments.items() if key in tool.arguments})
    except CallError:
        return
    assert parse_full(render_full(call)) == call
    assert call_of(call.tool, json.loads(json.dumps(arguments_of(call)))) == call
    prose, again = read_full(f"It is there, as `x` shows.\n\n{render_full(call)}\n")
    assert (prose, again) == ("It is there, as `x` shows.", call)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([*NAMES, *ODD, "\n", "```\n", " ", "1-2", "0", '"', " in ", "\0"]), LINE), max_size=9)
)
def test_any_text_is_a_call_or_a_correction(pieces: list[str]) -> None:
    for text in ("".join(pieces), "\n".join(pieces), "```\n" + " ".join(pieces) + "\n```"):
        try:
            call = parse_full(text)
        except CallError as error:
            call, said = None, str(error)
        assert parse_full(render_full(call)) == call if call else 0 < len(said) < 300


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.sampled_from(NAMES), st.text(max_size=9)),
    st.dictionaries(st.sampled_from(["path", "old", "start", "x"]), JSON),
)
def test_any_arguments_are_a_call_or_a_correction(name: str, arguments: dict[str, object]) -> None:
    try:
        call = call_of(name, arguments)
    except CallError:
        return
    assert parse_full(render_full(call)) == call


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("```\nview a.py 3-9\n```", Call("view", "a.py", 3, 9)),
        ("```bash\nVIEW my file.py 7\n```  ", Call("view", "my file.py", 7, 7)),
        ("view a.py", Call("view", "a.py")),
        ("```\nview a.py", Call("view", "a.py")),
        ("map", Call("map")),
        ("```\ntest\n```", Call("test")),
        ("test a.py b.py::c\n\nLet us see.", Call("test", targets=("a.py", "b.py::c"))),
        ("```\ntest\na.py::b[x y]\n```", Call("test", targets=("a.py::b[x y]",))),
        ("```\nsearch def f(x) in src/\n```", Call("search", "def f(x)", within="src/")),
        ("```\nsearch for x in my list\n```", Call("search", "for x in my list")),
        ('```\nsearch "x in y"\n```', Call("search", "x in y")),
        ("```\nedit a.py 3-4\n    x\n\n```", Call("edit", "a.py", 3, 4, body="    x\n")),
        ("```\nedit a.py\nx\n=>\n```", Call("edit", "a.py", old="x")),
        ("```\nedit a.py\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n```", Call("edit", "a.py", old="x", body="y")),
        ("As in\n```python\nx = 1\n```\nI do\n```\nsubmit\n```\nnow.", Call("submit")),
        ("<think>\n```\nview b.py\n```\n</think>\n```\nview a.py\n```", Call("view", "a.py")),
        ("```\nview b.py\n```\n</think>\n```\nview a.py\n```", Call("view", "a.py")),
        ("```\ncreate a.md\n</think>\n```", Call("create", "a.md", body="</think>")),
        ("````\ncreate a.md\n```\nx\n```\n````", Call("create", "a.md", body="```\nx\n```")),
    ],
)
def test_what_is_meant_is_understood(text: str, call: Call) -> None:
    assert parse_full(text) == call


@pytest.mark.parametrize(
    ("text", "correction"),
    [
        ("", "no call"),
        ("I would view a.py", "no call"),
        ("View a.py shows it.", "no call"),
        ("<think>view a.py", "no call"),
        ("```\nx = 1\n```", "begins with no tool"),
        ("```\nview a.py\n```\n```\nview b.py\n```", "more than one call"),
        ("```\ncreate a.md\n# a\n```python\nx\n```\nmore\n```", "must be the last one"),
        ("```\ncreate a.md\n```\nx\n```\n```", "must be the last one"),
        ("```\ncreate a.py\nx = 1\ny =", "not closed"),
        ("```\nedit a.py\nx\n```", "a line =>"),
        ("```\nedit a.py 4-3\nx\n```", "upwards from 1"),
        ("```\nedit a.py\n\n=>\nx\n```", "blank"),
        ("```\nview\n```", "view needs path"),
        ("```\nsearch\n```", "search needs pattern"),
        ("x" * (MAX_TURN_CHARS + 1), "at most"),
    ],
)
def test_what_is_no_call_is_corrected(text: str, correction: str) -> None:
    with pytest.raises(CallError, match=correction):
        parse_full(text)


@pytest.mark.parametrize(
    ("name", "arguments", "correction"),
    [
        ("run", {}, "no tool 'run'"),
        ("view", {"file": "a.py"}, "takes no 'file'; its arguments are: path, start, end"),
        ("view", {"path": 3}, "must be a string"),
        ("view", {"path": "a.py", "start": "three"}, "number of a line"),
        ("view", {"path": "a.py", "start": True}, "number of a line"),
        ("view", {"path": "a.py", "end": 4}, "upwards from 1"),
        ("view", {"path": "a.py\nb.py"}, "one line"),
        ("edit", {"path": "a.py", "new": "x"}, "either the old lines or a range"),
        ("edit", {"path": "a.py", "new": "x", "old": "y", "start": 3}, "either the old lines or a range"),
        ("create", {"path": "a.py", "text": "x" * MAX_TURN_CHARS}, "too long"),
        ("test", {"targets": [1]}, "list of strings"),
    ],
)
def test_hostile_arguments_are_corrected(name: str, arguments: dict[str, object], correction: str) -> None:
    with pytest.raises(CallError, match=correction):
        call_of(name, arguments)


def test_what_servers_send_for_nothing_is_nothing() -> None:
    assert call_of("View", {"path": " a.py ", "start": None}) == Call("view", "a.py")
    assert call_of("edit", {"path": "a.py", "old": "x\r\n", "new": "y\r\n"}) == Call("edit", "a.py", old="x", body="y")
    assert call_of("test", {"targets": "a.py b.py"}) == Call("test", targets=("a.py", "b.py"))
    assert call_of("view", {"path": "a.py", "start": "12"}) == Call("view", "a.py", 12, 12)


def test_every_tool_is_described_by_a_schema_that_servers_take() -> None:
    assert set(TOOLS) < set(NAMES)
    for tool in FULL_TOOLS:
        schema = tool.schema
        assert set(schema["required"]) <= set(schema["properties"])  # type: ignore[call-overload]
        assert json.loads(json.dumps(schema)) == schema
        assert tool.description.endswith(".")
