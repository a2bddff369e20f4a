"""The house: imports point only downwards, and nothing that must stay out is in the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("memory", "agent", "consolidation", "eval", "daemon")


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_downwards(room: str) -> None:
    allowed = set(FLOORS[: FLOORS.index(room) + 1])
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in names:
                top = name.split(".")[0]
                assert top not in set(FLOORS) - allowed, f"{path} imports {name}"


def test_training_knows_no_benchmark_and_only_grading_holds_secrets() -> None:
    for path in [p for room in ("agent", "consolidation") for p in (ROOT / room).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "TaskSecret" not in text, path
        assert not re.search(r"swe-?bench-cl|humaneval|mbpp", text, re.IGNORECASE), path


def test_no_weights_but_the_pocket_models_and_no_data_are_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    heavy = [name for name in tracked if Path(name).suffix in {".safetensors", ".bin", ".pt", ".gguf", ".pkl", ".jsonl", ".gz"}]
    assert heavy == ["agent/pocket/weights/model.safetensors"]
