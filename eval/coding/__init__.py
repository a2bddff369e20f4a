"""Two benchmarks of programming, HumanEval and sanitized MBPP, as guards: pass@1, greedy."""
