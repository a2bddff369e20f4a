"""A merged GGUF: the base file with an adapter's change added to the tensors it targets, everything else byte for byte."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, Keys, ReaderTensor
from gguf.quants import QuantError, dequantize, quantize

from agent.adapters import Lora
from consolidation.errors import AdapterError
from consolidation.layouts import check, made_whole
from consolidation.layouts.gguf import gguf_name, known_architecture
from consolidation.layouts.gguf_base import NO_LIMIT
from consolidation.layouts.gguf_file import MAX_BASE_ITEMS, open_gguf, value

CHUNK = 1 << 22


def merge_gguf(base: Path, lora: Lora, out: Path) -> None:
    """Write `base` with the adapter merged in. Every tensor keeps its type; quantised targets are quantised again.

    The `gguf` package can write F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, but no K-quants.

    Raises:
        ModelError, AdapterError: the adapter does not fit the base or changes nothing in it, a target's type cannot be
            written, or the file cannot be made.
    """
    check(lora, out)
    reader = open_gguf(base, NO_LIMIT, MAX_BASE_ITEMS)
    known_architecture(str(value(reader, Keys.General.ARCHITECTURE)), base)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    targets: dict[str, ReaderTensor] = {}
    for path, factors in lora.layers.items():
        tensor = tensors.get(f"{gguf_name(path)}.weight")
        if tensor is None or tuple(map(int, reversed(tensor.shape))) != (factors.b.shape[0], factors.a.shape[1]):
            raise AdapterError(f"{base} has no layer {path} of the adapter's shape; merge the adapter into its own base")
        _check_writable(tensor, base)
        targets[path] = tensor
    with made_whole(out) as made:
        shutil.copyfile(base, made)
        changed = False
        with made.open("r+b") as file:
            for path, tensor in targets.items():
                merged = _merged(tensor, lora.delta(path).numpy(), base)
                changed = changed or merged != tensor.data.tobytes()
                file.seek(tensor.data_offset)
                file.write(merged)
        if not changed:
            raise AdapterError(
                f"{out}: in the types of {base.name} the adapter changes nothing; take a finer base, or train again"
            )
        _check_rest(base, made, list(targets.values()))


def _check_writable(tensor: ReaderTensor, base: Path) -> None:
    kind = tensor.tensor_type
    try:
        quantize(np.zeros((1, 256), np.float32), kind)
    except (NotImplementedError, QuantError) as error:
        raise AdapterError(
            f"{base}: {tensor.name} is of type {kind.name}, which cannot be written here; take a base in Q8_0 or F16, "
            "or serve the adapter beside the base"
        ) from error


def _merged(tensor: ReaderTensor, delta: np.ndarray[Any, Any], base: Path) -> bytes:
    weight = dequantize(tensor.data, tensor.tensor_type) + delta
    with np.errstate(over="ignore"):
        found = quantize(weight, tensor.tensor_type)
    finite = found if tensor.tensor_type == GGMLQuantizationType.F16 else weight
    if not np.isfinite(finite).all():
        raise AdapterError(f"{base}: {tensor.name} is not finite with the adapter; train again")
    if found.nbytes != tensor.n_bytes:
        raise AdapterError(f"{base}: {tensor.name} has another size with the adapter; report this")
    return bytes(found.tobytes())


def _check_rest(base: Path, made: Path, targets: list[ReaderTensor]) -> None:
    """Refuse a copy that differs from the base outside of the targets."""
    size = base.stat().st_size
    spans = sorted((int(t.data_offset), int(t.data_offset) + int(t.n_bytes)) for t in targets)
    with base.open("rb") as one, made.open("rb") as two:
        for (_, begin), (end, _) in pairwise([(0, 0), *spans, (size, size)]):
            one.seek(begin)
            two.seek(begin)
            while begin < end:
                step = min(CHUNK, end - begin)
                if one.read(step) != two.read(step):
                    raise AdapterError(f"{made}: was not written as it is; check the disk")
                begin += step
        if made.stat().st_size != size:
            raise AdapterError(f"{made}: was not written whole; check the disk")
