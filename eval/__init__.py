"""Judgement: task streams, grading, guards, statistics and benchmarks."""
