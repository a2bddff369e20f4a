"""The model store of the Ollama double: names, manifests and blobs on disk as Ollama lays them out, and its registry client."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HOST, NAMESPACE, TAG = "registry.invalid", "library", "latest"
KIND = "application/vnd.ollama.image."
CONFIG_KIND = "application/vnd.docker.container.image.v1+json"
MANIFEST_KIND = "application/vnd.docker.distribution.manifest.v2+json"
PART = 1 << 16
"""Bytes of one ranged request; Ollama's own parts are 100 MB, so that an adapter would come in one."""
Progress = Callable[[dict[str, Any]], None]
Layer = dict[str, Any]


class ApiError(Exception):
    """What the server says no with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Name:
    """host/namespace/model:tag; what is left out has Ollama's defaults."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Name:
        rest, tag = text, TAG
        if text.rfind(":") > text.rfind("/"):
            rest, _, tag = text.rpartition(":")
        parts = rest.split("/")
        host, namespace, model = [HOST, NAMESPACE][: 3 - len(parts)] + parts if len(parts) < 3 else parts[-3:]
        forms = (r"[\w][\w.:-]{0,349}", r"[\w][\w-]{0,79}", r"[\w][\w.-]{0,79}", r"[\w][\w.-]{0,79}")
        if len(parts) > 3 or not all(
            re.fullmatch(form, part, re.ASCII) for form, part in zip(forms, (host, namespace, model, tag), strict=True)
        ):
            raise ApiError(400, "invalid model name")
        return cls(host, namespace, model, tag)

    @property
    def shown(self) -> str:
        place = f"{self.host}/{self.namespace}/" if self.host != HOST else ""
        place = f"{self.namespace}/" if not place and self.namespace != NAMESPACE else place
        return f"{place}{self.model}:{self.tag}"

    @property
    def path(self) -> Path:
        return Path(self.host, self.namespace, self.model, self.tag)


class ModelStore:
    """Manifests below `root`/manifests, blobs below `root`/blobs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "manifests").mkdir(parents=True, exist_ok=True)
        (root / "blobs").mkdir(exist_ok=True)
        self.fetched: list[str] = []
        """Digests that came over the network."""

    def blob(self, digest: str) -> Path:
        if not re.fullmatch(r"sha256[:-][0-9a-fA-F]{64}", digest):
            raise ApiError(400, "invalid digest format")
        return self.root / "blobs" / digest.replace(":", "-")

    def keep(self, blocks: Iterator[bytes], expected: str = "") -> tuple[str, int]:
        """Digest and size of a new blob; one that is not what it is called is thrown away."""
        found, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self.root / "blobs", prefix="sha256-", delete=False) as file:
            try:
                for block in blocks:
                    file.write(block)
                    found.update(block)
                    size += len(block)
            except BaseException:
                Path(file.name).unlink()
                raise
        digest = f"sha256:{found.hexdigest()}"
        if expected and digest != expected:
            Path(file.name).unlink()
            raise ApiError(400, f'digest mismatch, expected "{expected}", got "{digest}"')
        Path(file.name).rename(self.blob(digest))
        return digest, size

    def layer(self, kind: str, content: bytes) -> Layer:
        digest, size = self.keep(iter([content]))
        return {"mediaType": kind, "digest": digest, "size": size}

    def known(self, digest: str, kind: str, origin: str) -> Layer:
        path = self.blob(digest)
        if not path.exists():
            raise ApiError(400, f"open {path}: no such file or directory")
        return {"mediaType": kind, "digest": digest, "size": path.stat().st_size, "from": origin}

    def raw(self, name: Name) -> bytes:
        try:
            return (self.root / "manifests" / name.path).read_bytes()
        except OSError as error:
            raise ApiError(404, f"model '{name.shown}' not found") from error

    def manifest(self, name: Name) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.raw(name))
        except ValueError as error:
            raise ApiError(500, "unexpected EOF") from error
        return found

    def details(self, name: Name) -> dict[str, Any]:
        config = json.loads(self.blob(self.manifest(name)["config"]["digest"]).read_bytes())
        return {
            "parent_model": "",
            "format": config["model_format"],
            "family": config["model_family"],
            "families": config["model_families"],
            "parameter_size": config["model_type"],
            "quantization_level": config["file_type"],
        }

    def write(self, name: Name, content: bytes) -> None:
        path = self.root / "manifests" / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # in place, as Ollama does it: a cut leaves half a manifest

    def names(self) -> list[Name]:
        return [Name(*path.relative_to(self.root / "manifests").parts) for path in (self.root / "manifests").glob("*/*/*/*")]

    def remove(self, name: Name) -> None:
        layers = self.manifest(name)
        (self.root / "manifests" / name.path).unlink()
        used: set[str] = set()
        for other in self.names():
            with suppress(ApiError):
                used |= digests(self.manifest(other))
        for digest in digests(layers) - used:
            self.blob(digest).unlink(missing_ok=True)

    def pull(self, name: Name, insecure: bool, progress: Progress) -> None:
        """Fetch a manifest, then every blob that is not there, by HEAD and ranged GETs, each checked."""
        url = f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}"
        progress({"status": "pulling manifest"})
        with httpx.Client(timeout=10, trust_env=False) as client:
            try:
                answer = client.get(f"{url}/manifests/{name.tag}", headers={"Accept": MANIFEST_KIND})
                if answer.status_code == 404:
                    raise ApiError(500, "pull model manifest: file does not exist")
                answer.raise_for_status()
                manifest = json.loads(answer.content)
                for digest in digests(manifest):
                    progress({"status": f"pulling {digest[7:19]}", "digest": digest})
                    if not self.blob(digest).exists():
                        self.keep(self._parts(client, f"{url}/blobs/{digest}"), digest)
                        self.fetched.append(digest)
            except httpx.HTTPError as error:
                raise ApiError(500, f"pull model manifest: {error}") from error
            except ApiError as error:
                raise ApiError(500, error.text) from error
        for status in ("verifying sha256 digest", "writing manifest"):
            progress({"status": status})
        self.write(name, answer.content)
        progress({"status": "success"})

    def _parts(self, client: httpx.Client, url: str) -> Iterator[bytes]:
        head = client.head(url)
        head.raise_for_status()
        total = int(head.headers.get("content-length", 0))
        with client.stream("GET", url) as whole:  # only asked where the blob really lies
            if "location" not in whole.headers:
                raise ApiError(500, "http: no Location header in response")
            direct = httpx.URL(url).join(whole.headers["location"])
        for at in range(0, total, PART):
            part = client.get(direct, headers={"Range": f"bytes={at}-{min(at + PART, total) - 1}"})
            part.raise_for_status()
            yield part.content[:PART]

    def push(self, name: Name, insecure: bool, progress: Progress) -> None:
        """Offer every blob to the registry, then give it the manifest. What it does not have, it would have to take."""
        url = f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}"
        progress({"status": "retrieving manifest"})
        manifest = self.manifest(name)
        with httpx.Client(timeout=10, trust_env=False) as client:
            try:
                for digest in digests(manifest):
                    progress({"status": f"pushing {digest[7:19]}", "digest": digest})
                    client.head(f"{url}/blobs/{digest}").raise_for_status()
                progress({"status": "pushing manifest"})
                client.put(
                    f"{url}/manifests/{name.tag}", content=json.dumps(manifest), headers={"Content-Type": MANIFEST_KIND}
                ).raise_for_status()
            except httpx.HTTPError as error:
                raise ApiError(500, str(error)) from error
        progress({"status": "success"})


def digests(manifest: dict[str, Any]) -> set[str]:
    """Every blob a manifest needs."""
    return {str(layer["digest"]) for layer in [*manifest["layers"], manifest["config"]]}
