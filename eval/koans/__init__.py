"""Koans: single-file Rust programs that do not build, or panic, and the one small change that mends each."""

from eval.koans.book import FAMILIES
from eval.koans.stream import KoanStream, days, held_out

__all__ = ["FAMILIES", "KoanStream", "days", "held_out"]
