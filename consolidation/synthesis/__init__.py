"""Synthesis: from what was lived through (and what was merged) to training examples."""
