"""What an edit may not break: a file that could be parsed before must be so after."""

from __future__ import annotations

import json
import tomllib

from agent.tools import syntax_error


def broken(path: str, text: str) -> str:
    """Why a file of this name cannot be parsed, or nothing; most kinds are not looked at."""
    if path.endswith((".py", ".pyi")):
        return syntax_error(text)
    try:
        if path.endswith(".json"):
            json.loads(text.removeprefix("\ufeff"))
        elif path.endswith(".toml"):
            tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""
