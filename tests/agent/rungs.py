"""The rungs that contain, for the suites that attack them. Never the process rung: it contains nothing.

Docker runs where SLEEPY_DOCKER_IMAGE names an image (DOCKER_HOST its engine).
"""

from __future__ import annotations

import os
import sys

import pytest

from agent.errors import SandboxError
from agent.sandbox import Sandbox
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.docker import Docker
from agent.sandbox.ladder import tried
from agent.sandbox.seatbelt import Seatbelt

RUNGS = [
    "bubblewrap",
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("sandbox-exec", marks=pytest.mark.skipif(sys.platform != "darwin", reason="macOS only; never run here")),
]


def rung(name: str) -> Sandbox:
    """It, after it was seen to contain; skips the test, with the reason, where it does not run."""
    try:
        if name == "docker":
            image = os.environ.get("SLEEPY_DOCKER_IMAGE")
            if image is None:
                pytest.skip("no Docker image: set SLEEPY_DOCKER_IMAGE (and DOCKER_HOST)")
            return tried(Docker(image, os.environ.get("DOCKER_HOST")), isolates=True)
        return tried(Bubblewrap() if name == "bubblewrap" else Seatbelt(), isolates=True)
    except SandboxError as error:
        pytest.skip(str(error))
