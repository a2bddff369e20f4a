"""The three ways in which an adapter becomes a model of an Ollama server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama import ShowResponse

from agent.adapters import Lora
from agent.errors import ModelError
from agent.models.ollama_server import OllamaServer, adapters_in, architecture_of, full_name, trained_context
from agent.models.remote import Refused
from consolidation.layouts.gguf import write_gguf_adapter
from consolidation.layouts.gguf_base import write_gguf_base
from consolidation.layouts.gguf_merge import merge_gguf
from consolidation.publishing import PublishError
from consolidation.publishing.desk import Route
from consolidation.publishing.registry import LOOPBACK, Registry

KIND = "application/vnd.ollama.image."
LEFT_OVER = re.compile(rf"{re.escape(LOOPBACK)}:\d+/sleepy[0-9a-f]{{32}}/")
"""Names that a publish gave for its own time, and could not take back."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Base:
    """A model as the server tells of it: `model` and `adapters` are the blobs' sha256 (hex), `file` where the weights lie."""

    name: str
    shown: ShowResponse
    model: str
    adapters: list[str]
    file: Path | None

    @classmethod
    def of(cls, server: OllamaServer, name: str, file: Path | None, pristine: bool = True) -> Base:
        """Ask for it.

        Raises:
            PublishError: it carries an adapter, and should not: another one would add up with it.
            ModelError: it is not there.
        """
        shown = server.show(name)
        adapters = adapters_in(shown)
        if adapters and pristine:
            raise PublishError(f"{name} already carries an adapter; name the pristine model that it was made from")
        found = re.search(r"(?m)^FROM (.*sha256-([0-9a-f]{64}))\s*$", shown.modelfile or "")
        there = file or (Path(found[1]) if found and server.loopback else None)
        return cls(full_name(name), shown, found[2] if found else "", adapters, there)

    @property
    def trained(self) -> int:
        """Tokens of its longest context; 0 if not told."""
        return trained_context(self.shown)


@dataclass(frozen=True)
class Built:
    """What was given to the server: sha256 (hex) of the adapter's or the merged file."""

    blob: str


def build(route: Route, server: OllamaServer, base: Base, lora: Lora, tag: str, work: Path) -> Built:
    """Make `tag` of base and adapter. `work` is an empty folder for the files on the way.

    Raises:
        Refused, AdapterError: this way does not lead there.
        ModelUnavailable: the server is gone.
    """
    return {"create": _create, "pull": _pull, "merge": _merge}[route](server, base, lora, tag, work)


def _create(server: OllamaServer, base: Base, lora: Lora, tag: str, work: Path) -> Built:
    file = work / "adapter.gguf"
    write_gguf_adapter(lora, file, architecture_of(base.shown))
    blob = _upload(server, file)
    server.follow(lambda client: client.create(tag, from_=base.name, adapters={file.name: blob}, stream=True), base.name)
    return Built(blob.removeprefix("sha256:"))


def _pull(server: OllamaServer, base: Base, lora: Lora, tag: str, work: Path) -> Built:
    file = work / "adapter.gguf"
    write_gguf_adapter(lora, file, architecture_of(base.shown))
    digest = f"sha256:{_sha256(file)}"
    with Registry() as registry:
        name = registry.name
        try:
            manifest = _manifest(server, base, registry)
            manifest["layers"] = [layer for layer in manifest["layers"] if layer["mediaType"] != f"{KIND}adapter"]
            manifest["layers"].append({"mediaType": f"{KIND}adapter", "digest": digest, "size": file.stat().st_size})
            registry.offer(json.dumps(manifest, separators=(",", ":")).encode(), {digest: file})
            server.follow(lambda client: client.pull(name, insecure=True, stream=True))
            server.ask(lambda client: client.copy(name, tag), name)
        finally:
            with suppress(ModelError):
                server.ask(lambda client: client.delete(name))
    return Built(digest.removeprefix("sha256:"))


def _manifest(server: OllamaServer, base: Base, registry: Registry) -> dict[str, Any]:
    """The base's manifest: pushed to the registry, which takes nothing else; else from beside the base's own file."""
    name, why = registry.name, ""
    try:
        registry.learn()
        server.ask(lambda client: client.copy(base.name, name), base.name)
        server.follow(lambda client: client.push(name, insecure=True, stream=True))
        return _read(registry.learnt)
    except Refused as error:
        why = str(error)
    for path in _on_disk(base):
        with suppress(OSError, Refused):
            found = _read(path.read_bytes())
            if any(layer["digest"] == f"sha256:{base.model}" for layer in found["layers"]):
                return found
    raise Refused(f"the layers of {base.name} cannot be read, neither over the API ({why}) nor from disk", 0)


def _on_disk(base: Base) -> list[Path]:
    """Where Ollama may keep the base's manifest, seen from its weights: models/manifests/HOST/NAMESPACE/MODEL/TAG."""
    model, _, tag = base.name.rpartition(":")
    host, namespace, short = (["*", "library", model], ["*", *model.split("/")], model.split("/"))[min(model.count("/"), 2)]
    return [] if base.file is None else sorted(base.file.parent.parent.glob(f"manifests/{host}/{namespace}/{short}/{tag}"))


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        if all(re.fullmatch(r"sha256:[0-9a-f]{64}", one["digest"]) and one["mediaType"] for one in _entries(found)):
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(f"no readable manifest ({str(error)[:200]})", 0) from error
    raise Refused("no readable manifest", 0)


def _entries(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*manifest["layers"], manifest["config"]]


def build_fused(server: OllamaServer, base: Base, folder: Path, quantise: str, tag: str, work: Path) -> Built:
    """Make `tag` of a fused model's folder, with the base's template and parameters; Ollama quantises it.

    Raises:
        Refused, AdapterError: it cannot be made.
        ModelUnavailable: the server is gone.
    """
    file = work / "fused.gguf"
    write_gguf_base(folder, file, "f16" if quantise else "f32")
    blob = _upload(server, file)
    _from_file(server, base, file.name, blob, tag, quantise)
    return Built(blob.removeprefix("sha256:"))


def _merge(server: OllamaServer, base: Base, lora: Lora, tag: str, work: Path) -> Built:
    if base.file is None or not base.file.is_file():
        raise Refused(f"the file of {base.name} cannot be read from here; name it as the publisher's base_gguf", 0)
    if _sha256(base.file) != base.model:
        raise Refused(f"{base.file} is not the file that {base.name} is served from", 0)
    file = work / "merged.gguf"
    merge_gguf(base.file, lora, file)
    blob = _upload(server, file)
    _from_file(server, base, file.name, blob, tag)
    return Built(blob.removeprefix("sha256:"))


def _from_file(server: OllamaServer, base: Base, name: str, blob: str, tag: str, quantise: str = "") -> None:
    template, system = (_told(base.shown, word) for word in ("TEMPLATE", "SYSTEM"))
    given = _parameters(base.shown) or None
    wanted = quantise or None
    server.follow(
        lambda client: client.create(
            tag, files={name: blob}, quantize=wanted, template=template, system=system, parameters=given, stream=True
        )
    )


def _told(shown: ShowResponse, name: str) -> str | None:
    """What a model's Modelfile says of template or system; the `template` of the answer itself may be another kind."""
    found = re.search(rf'(?ms)^{name} (?:"""(.*?)"""|"([^"]*)"|([^\n]*))$', shown.modelfile or "")
    return next((text for text in found.groups() if text), None) if found else None


def _parameters(shown: ShowResponse) -> dict[str, Any]:
    """The base's own parameters, told as lines of name and value; a name that comes twice has a list."""
    found: dict[str, Any] = {}
    for line in (shown.parameters or "").splitlines():
        name, _, text = line.strip().partition(" ")
        try:
            one = json.loads(text)
        except ValueError:
            one = text.strip()
        found[name] = one if name not in found else [*(found[name] if isinstance(found[name], list) else [found[name]]), one]
    return {name: [one] if name == "stop" and isinstance(one, str) else one for name, one in found.items() if name}


def _upload(server: OllamaServer, file: Path) -> str:
    digest = f"sha256:{_sha256(file)}"
    if not server.has_blob(digest):
        server.ask(lambda client: client.create_blob(file))
    return digest


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
