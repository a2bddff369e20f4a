"""Native grading: the official verdict on SWE-Bench-CL tasks without Docker images, in locked environments and the sandbox."""
