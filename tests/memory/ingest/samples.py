"""Small sessions of our own in the shapes that other agents write. Keys are put together, so that none stands in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEY = "sk-ant-" + "api03-Zx81kQpWm20vRt7LbY"


def swe_agent(exit_status: str = "submitted") -> dict[str, Any]:
    steps = [
        {
            "action": "ls -F\n",
            "observation": "fees.py\ntests/",
            "response": "Look.",
            "thought": "Look around first.",
            "state": {},
        },
        {"action": 'open "fees.py"', "observation": "1:def fee(): return 2", "response": "", "thought": "Open it.", "new": [1]},
        {"action": "", "observation": "Your answer had no action.", "response": "Hm.", "thought": "Hm."},
        {"action": "submit", "observation": "diff --git a/fees.py b/fees.py", "response": "", "thought": "Done."},
    ]
    call = {"function": {"name": "open", "arguments": '{"path": "fees.py"}'}, "id": "call_1", "type": "function"}
    asked = "<pr_description>\nFees are doubled\n</pr_description>\nSteps: ..."
    history = [
        {"role": "system", "content": "SETTING: you are a programmer", "agent": "main"},
        {"role": "user", "content": "Here is a demonstration", "is_demo": True},
        {
            "role": "user",
            "content": [{"type": "text", "text": asked}],
        },
        {"role": "assistant", "content": "Look around first.", "action": "ls -F\n"},
        {"role": "assistant", "content": "Open it.", "action": 'open "fees.py"', "tool_calls": [call]},
    ]
    config = {"agent": {"model": {"name": "gpt-4"}}, "problem_statement": {"id": "acme__bank-12", "type": "swe_bench"}}
    info = {"exit_status": exit_status, "submission": "diff --git", "model_stats": {"api_calls": 4}}
    return {"environment": "main", "trajectory": steps, "history": history, "info": info, "replay_config": json.dumps(config)}


def mini(version: str | None = "mini-swe-agent-1.1", exit_status: str = "Submitted") -> dict[str, Any]:
    actions = [{"command": "ls", "tool_call_id": "call_a"}, {"command": "cat fees.py", "tool_call_id": "call_b"}]
    fenced = "Look.\n\n```bash\nls\n```"
    new = [
        {"role": "assistant", "content": "Look.", "tool_calls": [], "extra": {"actions": actions, "timestamp": 1760000000.5}},
        {"role": "tool", "tool_call_id": "call_b", "content": "def fee(): return 2", "extra": {"returncode": 0}},
        {"role": "tool", "tool_call_id": "call_a", "content": "fees.py", "extra": {"returncode": 0}},
        {"object": "response", "output": [{"type": "message", "content": [{"type": "output_text", "text": "Done."}]}]},
        {"role": "exit", "content": "", "extra": {"exit_status": exit_status}},
    ]
    old = [{"role": "assistant", "content": fenced}, {"role": "user", "content": "<returncode>0</returncode>\nfees.py"}]
    asked = "Please solve this issue: Fees are doubled\n\nYou can execute bash commands and edit files."
    messages = [{"role": "system", "content": "You can use bash."}, {"role": "user", "content": asked}]
    info = {"exit_status": exit_status, "config": {"model": {"model_name": "openai/gpt-5"}}, "mini_version": "2.0.0"}
    whole = {"info": info, "messages": messages + (new if version == "mini-swe-agent-1.1" else old)}
    return whole | ({"trajectory_format": version} if version else {})


def claude_lines(session: str = "5f0c7e1a-0000-4000-8000-000000000001") -> list[dict[str, Any]]:
    def line(kind: str, number: int, content: Any, **more: Any) -> dict[str, Any]:
        when = f"2026-01-20T11:57:{number:02d}.716Z"
        message = {"role": kind, "content": content} | ({"model": "claude-opus-4-5"} if kind == "assistant" else {})
        head = {"type": kind, "uuid": f"{session}-{number}", "timestamp": when, "sessionId": session, "version": "2.1.12"}
        return head | {"cwd": "/home/ada/code/bank", "message": message} | more

    def call(identity: str, name: str, **arguments: Any) -> dict[str, Any]:
        return {"type": "tool_use", "id": identity, "name": name, "input": arguments}

    def result(identity: str, content: Any) -> list[dict[str, Any]]:
        return [{"type": "tool_result", "tool_use_id": identity, "content": content}]

    return [
        {"type": "summary", "summary": "Fees", "leafUuid": "x"},
        {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
        line("user", 1, "<command-name>/clear</command-name>"),
        line("user", 2, "caveat", isMeta=True),
        line("user", 3, "Fees are doubled, please fix"),
        line("assistant", 4, [{"type": "thinking", "thinking": "hm", "signature": "s"}]),
        line("assistant", 5, [{"type": "text", "text": "I will look."}]),
        line(
            "assistant",
            6,
            [call("t1", "Read", file_path="/home/ada/code/bank/fees.py"), call("t2", "Bash", command="pytest -q")],
        ),
        line("user", 7, result("t2", [{"type": "text", "text": "1 failed"}, {"type": "image", "source": {"data": "AAAA"}}])),
        line("user", 8, result("t1", "     1→def fee(): return 2"), toolUseResult={"file": {}}),
        line("assistant", 9, [call("s1", "Grep", pattern="fee")], isSidechain=True),
        line("assistant", 10, [{"type": "text", "text": "It doubles. Shall I fix it?"}]),
        line("user", 11, "yes"),
        line("assistant", 12, [call("t3", "Edit", old_string="2", new_string="1")]),
        line("user", 12, result("t3", "a line that was written twice")),
        line("user", 13, result("t3", "edited")),
        line("assistant", 14, [{"type": "text", "text": "Fixed."}]),
        {"type": "brand-new-type", "sessionId": session, "uuid": "u"},
    ]


def write(path: Path, value: Any) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in value) if lines else json.dumps(value), encoding="utf-8")
    return path
