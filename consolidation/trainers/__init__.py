"""Trainers: each turns a job into a LoRA adapter folder, in a child process."""
