"""Adapters on their way out of the store, in any layout, and into it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from agent.adapters import CONFIG, WEIGHTS, Lora, read_peft
from consolidation.adapters import ARTEFACTS, MANIFEST, Adapter, AdapterStore, Manifest, artefact_hash, artefacts_of
from consolidation.errors import AdapterError
from consolidation.layouts import check, look_over, look_over_safetensors, made_whole, number, read_json
from consolidation.layouts import mlx as mlx_layout
from consolidation.layouts.mlx import read_mlx, write_mlx
from consolidation.layouts.peft import write_peft
from consolidation.mixture.serving import is_mixture
from memory.files import write_whole

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
GGUF_FILE = "adapter.gguf"
LAYOUTS = ("peft", "mlx", "gguf")
IMPORTED = "imported"


def lora_of(adapter: Adapter, room: Path) -> Lora:
    """Exactly the adapter that the id names: its files are copied to a private folder in `room`, the copy is checked and read.

    Raises:
        ModelError, AdapterError: it was changed, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix=".adapter-", dir=room) as private:
        return read_peft(_copied(adapter, Path(private)))


def export(adapter: Adapter, layout: str, out: Path, architecture: str = "qwen2") -> list[Path]:
    """Write an adapter to a new (or empty) folder, all files or none; returns the files.

    `peft` gives the store's own bytes, `mlx` what `mlx_lm` loads, `gguf` one file for llama.cpp and Ollama, for a base
    of this architecture. The manifest goes along. What a mixture loses is told by `caution`.

    Raises:
        ModelError, AdapterError: it cannot be converted, or the folder cannot be made.
    """
    if layout not in LAYOUTS:
        raise AdapterError(f"no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    with made_whole(out) as made:
        if layout == "peft":
            made.mkdir()
            check(read_peft(_copied(adapter, made)), adapter.folder)
        elif layout == "mlx":
            write_mlx(lora_of(adapter, made.parent), made)
        else:
            from consolidation.layouts.gguf import write_gguf_adapter

            write_gguf_adapter(lora_of(adapter, made.parent), made / GGUF_FILE, architecture)
        write_whole(made / MANIFEST, adapter.manifest.model_dump_json(indent=2))
    return sorted(out.iterdir())


def caution(adapter: Adapter, layout: str) -> str:
    """What an adapter is not any more in a layout; empty if nothing is lost."""
    if not is_mixture(adapter.folder):
        return ""
    mean = "the mean of a mixture's experts, which no guard has examined"
    if layout == "peft":
        return f"its router goes along, but only this program asks it; anything else serves {mean}"
    return f"{layout} has no place for its router: it is {mean}"


def import_adapter(
    store: AdapterStore, path: Path, base_hash: str, base: Path | None = None, scope: tuple[str, ...] = ()
) -> Adapter:
    """Take an adapter from a folder (PEFT, MLX) or a GGUF file (or a folder with one) into the store, as a candidate.

    It must be meant for the base model with this hash: a manifest beside it is held against the hash, the shapes of its
    layers against the weights in the folder `base`, if one is given. Its configuration is written anew, so that nothing
    but rank, alpha and factors comes in.

    Raises:
        ModelError, AdapterError: it is not there, damaged, hostile, for another base, no plain LoRA, or without effect.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="sleepy-import-") as private:
            lora = _reader(path)(Path(private))
            _check_origin(path if path.is_dir() else path.parent, base_hash)
            check(lora, path)
            if base is not None:
                check_fits(lora, base)
            folder = Path(private) / "canonical"
            write_peft(lora, folder, base_hash)
            return store.admit(folder, _imported(lora, base_hash, scope))
    except OSError as error:
        raise AdapterError(f"{path}: cannot be imported ({error.strerror or error}); nothing was taken in") from error


def check_fits(lora: Lora, base: Path) -> None:
    """Refuse an adapter with a layer that the base in a folder has not, or has in another shape. Reads no weights.

    Raises:
        AdapterError: naming the first such layer.
    """
    shapes: dict[str, list[int]] = {}
    for shard in sorted(base.glob("*.safetensors")):
        with opened(shard) as file:
            shapes |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if any(name.endswith(".scales") for name in shapes):
        raise AdapterError(f"{base} is quantised; name the folder of the base that is not")
    for path, f in lora.layers.items():
        if shapes.get(f"{path}.weight") != [f.b.shape[0], f.a.shape[1]]:
            raise AdapterError(f"{base} has no layer {path} of the adapter's shape; it belongs to another base model")


@contextmanager
def opened(shard: Path) -> Iterator[Any]:
    """A file of a base model's weights.

    Raises:
        AdapterError: it cannot be read.
    """
    try:
        with safe_open(shard, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{shard}: cannot be read ({str(error)[:200]}); download the model again") from error


def targets_of(lora: Lora) -> tuple[str, ...]:
    """Names of the kinds of layers that are adapted, such as `q_proj`."""
    return tuple(sorted({path.rpartition(".")[2] for path in lora.layers}))


def _imported(lora: Lora, base_hash: str, scope: tuple[str, ...]) -> Manifest:
    return Manifest(
        created_at=datetime.now(UTC),
        base=base_hash,
        strategy=IMPORTED,
        seed=0,
        data="",
        scope=scope,
        config_hash="",
        loss_first=0.0,
        loss_last=0.0,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=targets_of(lora),
    )


def _check_origin(folder: Path, base_hash: str) -> None:
    """Hold the manifest beside an exported adapter against the base it is to serve."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    base = read_json(path).get("base")
    if base != base_hash:
        raise AdapterError(
            f"{folder}: the adapter was trained on base model {str(base)[:64]}, not on {base_hash}; import it there"
        )


def _reader(path: Path) -> Callable[[Path], Lora]:
    """How to read what lies there, given a private folder to copy files to before they are trusted."""
    if path.is_dir():
        pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
        if pickles:
            raise AdapterError(
                f"{path / pickles[0]} is a pickle, which can run code when it is opened; save it as safetensors first"
            )
        ggufs = sorted(path.glob("*.gguf"))
        if (path / WEIGHTS).exists():
            return lambda private: _read_copy(path, private, ARTEFACTS)
        if (path / mlx_layout.WEIGHTS).exists():
            return lambda private: _read_copy(path, private, (CONFIG, mlx_layout.WEIGHTS))
        if len(ggufs) != 1:
            raise AdapterError(
                f"{path}: no adapter there; give a folder with {WEIGHTS} or {mlx_layout.WEIGHTS}, or a GGUF file"
            )
        path = ggufs[0]
    if path.suffix.lower() in PICKLES:
        raise AdapterError(f"{path} is a pickle, which can run code when it is opened; save it as safetensors first")
    return lambda private: _read_gguf_copy(path, private)


def _read_copy(folder: Path, private: Path, names: tuple[str, ...]) -> Lora:
    for name in names:
        look_over(folder / name)
        shutil.copyfile(folder / name, private / name)
    if mlx_layout.WEIGHTS in names:
        return read_mlx(private)
    look_over_safetensors(private / WEIGHTS)
    config = read_json(private / CONFIG)
    for name in ("r", "lora_alpha"):
        number(config.get(name), name, folder / CONFIG)
    return read_peft(private)


def _read_gguf_copy(path: Path, private: Path) -> Lora:
    from consolidation.layouts.gguf import read_gguf_adapter

    look_over(path)
    shutil.copyfile(path, private / GGUF_FILE)
    return read_gguf_adapter(private / GGUF_FILE)


def _copied(adapter: Adapter, to: Path) -> Path:
    for name in artefacts_of(adapter.folder):
        shutil.copyfile(adapter.folder / name, to / name)
    found = artefact_hash(to)
    if found != adapter.id:
        raise AdapterError(f"{adapter.folder} was changed: its content is {found}; delete the folder and roll back")
    return to
