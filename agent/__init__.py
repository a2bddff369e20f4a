"""The day: one agent loop, its turn protocol, tools, workspace, sandbox and model backends."""
