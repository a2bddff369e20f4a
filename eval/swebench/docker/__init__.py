"""Docker grading: the official verdict on SWE-Bench-CL tasks in the benchmark's images, in hardened containers."""
