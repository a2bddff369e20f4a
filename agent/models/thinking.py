"""Reasoning models think aloud before they speak; what they think is kept apart and never executed."""

from __future__ import annotations

BEGIN, END = "<think>", "</think>"


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """What was thought, and what was said after it.

    `opened` says that the prompt itself ended with the opening mark (DeepSeek-R1's template does). A
    thought that was never closed leaves nothing that was said. Where no opening mark is known of, only a closing mark
    on a line of its own counts: a call may well edit a file that has one in it.
    """
    start = text.lstrip()
    if not opened and not start.startswith(BEGIN):
        before, mark, after = text.partition(f"\n{END}\n")  # the opening mark was part of the prompt after all
        return (before.strip(), after.lstrip("\n")) if mark and BEGIN not in before else ("", text)
    thought, mark, said = start.removeprefix(BEGIN).partition(END)
    return thought.strip(), said.lstrip("\n") if mark else ""
