"""SWE-Bench-CL: real issues of real repositories, in order (Joshi et al. 2025)."""
