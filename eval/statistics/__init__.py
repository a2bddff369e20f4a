"""Statistics of paired experiments: tests, intervals, corrections, power, and a simulation that shows they are honest."""
