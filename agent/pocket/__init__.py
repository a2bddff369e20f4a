"""The pocket model: a tiny Qwen2-architecture transformer that ships with the project."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
