"""The Docker engine, as far as images go: is one here, pull it, build it, read a folder of it. Runs are the sandbox's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eval.errors import EvalError
from eval.swebench.docker.dockerfiles import Layer

ASK_SECONDS = 60.0
COPY_SECONDS = 600.0
PULL_SECONDS = 3600.0
BUILD_SECONDS = 7200.0
_ARCHES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}


class Engine:
    """The engine at `host` (as in DOCKER_HOST; the client's own default otherwise)."""

    def __init__(self, host: str | None = None, executable: str = "docker") -> None:
        """Asks nothing yet.

        Raises:
            EvalError: there is no client.
        """
        found = shutil.which(executable)
        if found is None:
            raise EvalError(f"{executable} not found; install Docker, or set tasks.grading to native")
        self.host = host
        self._client = [found, *(["--host", host] if host else [])]

    def arch(self) -> str:
        """What its images run on, as swebench calls it: `x86_64` or `arm64`.

        Raises:
            EvalError: it does not answer, or is of another kind.
        """
        told = self._ask("version", "--format", "{{.Server.Arch}}").strip()
        if told not in _ARCHES:
            raise EvalError(f"the Docker engine runs {told or 'nothing'}, but there are images for x86_64 and arm64 only")
        return _ARCHES[told]

    def identity(self, image: str) -> str | None:
        """The content hash (`sha256:...`) of an image that is here; `None` if it is not.

        Raises:
            EvalError: the engine does not answer.
        """
        done = self._run(["image", "inspect", "--format", "{{.Id}}", "--", image], ASK_SECONDS)
        if done.returncode == 0:
            return done.stdout.strip()
        if "no such image" in done.stderr.casefold():
            return None
        raise self._failed("image inspect", done)

    def pull(self, image: str) -> None:
        """Get an image from its registry.

        Raises:
            EvalError: it cannot be had.
        """
        self._ask("pull", "--quiet", "--", image, seconds=PULL_SECONDS)

    def build(self, layer: Layer) -> None:
        """Build one image from a Dockerfile and its scripts; needs whatever network these ask for.

        Raises:
            EvalError: a step failed.
        """
        with tempfile.TemporaryDirectory(prefix="image-") as folder:
            write_context(layer, Path(folder))
            self._ask(*build_words(layer, folder), seconds=BUILD_SECONDS)

    def remove(self, image: str) -> None:
        """Take an image away, if it is here and nothing uses it."""
        self._run(["image", "rm", "--", image], ASK_SECONDS)

    @contextmanager
    def folder(self, image: str, path: str) -> Iterator[IO[bytes]]:
        """A folder of an image as a tar stream; names in it begin with the folder's own. Nothing of the image is run.

        Raises:
            EvalError: there is no such image or folder.
        """
        name = self._ask("create", "--network", "none", "--pull", "never", "--entrypoint", "", "--", image, "/none").strip()
        try:
            with tempfile.TemporaryFile() as said:
                process = subprocess.Popen(
                    [*self._client, "cp", f"{name}:{path}", "-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
                )
                assert process.stdout is not None
                stop = threading.Timer(COPY_SECONDS, process.kill)
                stop.daemon = True
                stop.start()
                try:
                    with process.stdout:
                        yield process.stdout
                        while process.stdout.read(2**20):  # the padding after the archive's end
                            pass
                except BaseException:
                    process.kill()
                    process.wait()
                    raise
                finally:
                    stop.cancel()
                if process.wait(ASK_SECONDS) != 0:
                    said.seek(0)
                    raise EvalError(f"{image}: {path} cannot be read: {said.read(600).decode('utf-8', 'replace').strip()}")
        finally:
            self._run(["rm", "--force", "--volumes", name], ASK_SECONDS)

    def _ask(self, *words: str, seconds: float = ASK_SECONDS) -> str:
        done = self._run([*words], seconds)
        if done.returncode != 0:
            raise self._failed(words[0], done)
        return done.stdout

    def _run(self, words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._client, *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EvalError(f"docker {words[0]} failed ({error}); is the engine running?") from error

    @staticmethod
    def _failed(what: str, done: subprocess.CompletedProcess[str]) -> EvalError:
        said = " ".join((done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").split())
        return EvalError(f"docker {what} failed: {said[-400:]}")


def build_words(layer: Layer, folder: str) -> tuple[str, ...]:
    """What the client is told to build a layer from its context."""
    return ("build", "--quiet", "--platform", layer.platform, "--tag", layer.tag, "--", folder)


def write_context(layer: Layer, folder: Path) -> None:
    """Write down what a layer is built from."""
    texts: Mapping[str, str] = {"Dockerfile": layer.dockerfile, **layer.scripts}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
