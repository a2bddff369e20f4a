"""Fused models: a base with one adapter added to its weights for good, and quantised ones, for engines without adapters.

A provenance file beside the weights says what they were made of, and the hash of every file; `verify` computes them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.adapters import Lora
from agent.models.weights import folder_hash
from consolidation.adapters import Adapter
from consolidation.errors import AdapterError
from consolidation.layouts import made_whole, read_json
from consolidation.portable import check_fits, lora_of, opened
from memory.files import write_whole
from memory.hashing import content_hash

PROVENANCE = "provenance.json"
BITS = (4, 5, 6, 8)
GROUP = 64
BESIDE = {".json", ".txt", ".jinja", ".model", ".md"}
"""What else of a model folder is taken along; programs (`.py`) and pickles are not."""


class Provenance(BaseModel):
    """What a model folder was made of: `base` is a folder hash, `adapter` an id, `bits` 0 where it is not quantised.

    `files` has the sha256 of every file but this one; `output` is the hash over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: Literal["fused", "quantised"]
    base: str
    adapter: str
    bits: int = 0
    files: dict[str, str]
    output: str


def fuse(base: Path, adapter: Adapter, out: Path) -> Provenance:
    """Write the base in a folder with the adapter added to its weights.

    The adapter is read once, from a copy whose content hash is its id. Names and types of tensors stay, so a bfloat16
    base rounds the sum: a fused model is to be guarded itself. One shard is in memory at a time.

    Raises:
        ModelError, AdapterError: the adapter belongs to another base or changes nothing, or the folder cannot be made.
    """
    base_hash = folder_hash(base)
    if base_hash != adapter.manifest.base:
        raise AdapterError(
            f"adapter {adapter.id} was trained on base model {adapter.manifest.base}, and {base} is {base_hash}; "
            "name the folder of its own base"
        )
    with made_whole(out) as made:
        lora = lora_of(adapter, made.parent)
        check_fits(lora, base)
        made.mkdir()
        changed = False
        for shard in sorted(base.glob("*.safetensors")):
            changed = _fuse_shard(shard, lora, made / shard.name) or changed
        if not changed:
            raise AdapterError(f"{out}: in the precision of the base the adapter changes nothing; train again")
        _copy_beside(base, made)
        if folder_hash(base) != base_hash:
            raise AdapterError(f"{base} was changed while it was read; try again")
        return _sign(made, "fused", base_hash, adapter.id)


def quantise_mlx(folder: Path, out: Path, bits: int = 4) -> Provenance:
    """Write a fused model (or a bare one) quantised by mlx-lm, in groups of 64, to 4, 5, 6 or 8 bits.

    Raises:
        ModelError, AdapterError: the model is not what its provenance says, or MLX cannot load or write it.
    """
    try:
        from mlx_lm.utils import load_model, quantize_model, save_config, save_model
    except ImportError as error:
        raise AdapterError(f"MLX is not installed ({error}); install the extra: pip install 'sleepy-agent[mlx]'") from error
    if bits not in BITS:
        raise AdapterError(f"MLX quantises to {', '.join(map(str, BITS))} bits here, not {bits}")
    before = verify(folder) if (folder / PROVENANCE).exists() else None
    folder_was = folder_hash(folder)
    config = read_json(folder / "config.json")
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    extra = {} if theta is None or "rope_theta" in config else {"rope_theta": theta}  # mlx-lm would take its default
    with made_whole(out) as made:
        made.mkdir()
        _copy_beside(folder, made)
        (made / "model.safetensors.index.json").unlink(missing_ok=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                model, loaded = load_model(folder, lazy=True, model_config=extra)
                model, quantised = quantize_model(model, loaded, GROUP, bits)
                save_model(made, model, donate_model=True)
            save_config(quantised, made / "config.json")
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise AdapterError(f"{folder}: MLX cannot quantise it ({str(error)[:300]})") from error
        if folder_hash(folder) != folder_was:
            raise AdapterError(f"{folder} was changed while it was read; try again")
        base, adapter = (before.base, before.adapter) if before else (folder_was, "")
        return _sign(made, "quantised", base, adapter, bits)


def verify(folder: Path) -> Provenance:
    """The provenance of a folder whose every file is still what it was, byte for byte.

    Raises:
        AdapterError: there is none, or a file was changed, removed or added.
    """
    try:
        signed = Provenance.model_validate(read_json(folder / PROVENANCE))
    except ValidationError as error:
        raise AdapterError(f"{folder / PROVENANCE}: not a provenance file ({error}); fuse again") from error
    found = _hashes(folder)
    if found != signed.files or content_hash(found) != signed.output:
        changed = sorted(name for name in found.keys() | signed.files.keys() if found.get(name) != signed.files.get(name))
        raise AdapterError(f"{folder} is not what was made ({', '.join(changed[:3]) or PROVENANCE} was changed); fuse again")
    return signed


def _fuse_shard(shard: Path, lora: Lora, to: Path) -> bool:
    """Write one shard; whether any of its bits changed."""
    import torch
    from safetensors.torch import save_file

    with opened(shard) as file:
        tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata: Mapping[str, str] | None = file.metadata()
    changed = False
    for path in lora.layers:
        weight = tensors.get(f"{path}.weight")
        if weight is None:
            continue
        fused = (weight.float() + lora.delta(path)).to(weight.dtype)
        if not torch.isfinite(fused).all():
            raise AdapterError(f"{path} is not finite in {weight.dtype} with the adapter; train again")
        changed = changed or not fused.equal(weight)
        tensors[f"{path}.weight"] = fused
    save_file(tensors, to, metadata=dict(metadata) if metadata else None)
    return changed


def _copy_beside(folder: Path, to: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.suffix in BESIDE and path.name != PROVENANCE:
            shutil.copyfile(path, to / path.name)


def _sign(folder: Path, made: Literal["fused", "quantised"], base: str, adapter: str, bits: int = 0) -> Provenance:
    files = _hashes(folder)
    signed = Provenance(made=made, base=base, adapter=adapter, bits=bits, files=files, output=content_hash(files))
    write_whole(folder / PROVENANCE, signed.model_dump_json(indent=2))
    return signed


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file; not from the cache of hashes, which goes by size and time of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / PROVENANCE:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
