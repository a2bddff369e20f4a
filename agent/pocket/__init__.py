"""The pocket model: a tiny Qwen2-architecture transformer that ships with the project."""
