"""GGUF files from outside: looked over before the library's reader opens them, because that trusts every count in them.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader

from consolidation.errors import AdapterError
from consolidation.layouts import MAX_BYTES, look_over

MAX_ITEMS = 1 << 16
"""Keys, elements of arrays and tensors of an adapter; the reader makes some objects for each."""
MAX_BASE_ITEMS = 1 << 23
MAX_HEADER = 256 << 20
MAX_NAME = 256
STRING, ARRAY = 8, 9
WIDTH = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def open_gguf(path: Path, limit: int = MAX_BYTES, items: int = MAX_ITEMS) -> GGUFReader:
    """The library's reader of a file that keeps its promises: counts, sizes, offsets and names were checked.

    Raises:
        AdapterError: it is missing, too large, damaged or hostile.
    """
    if look_over(path, limit) < 24:
        raise AdapterError(f"{path}: no readable GGUF file (it ends too early)")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data, items).whole()
        return GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise AdapterError(f"{path}: no readable GGUF file ({str(error)[:300]})") from error


def value(reader: GGUFReader, key: str) -> Any:
    """A scalar or text of the file's metadata; None if it is not there, or not readable."""
    field = reader.get_field(key)
    try:
        return None if field is None else field.contents()
    except (ValueError, IndexError):
        return None


class _Walk:
    """One pass over the header. What does not add up is a ValueError."""

    def __init__(self, data: mmap.mmap, items: int) -> None:
        self.data, self.at, self.items = data, 0, items
        self.end = min(len(data), MAX_HEADER)

    def skip(self, count: int) -> int:
        """Where the next `count` bytes begin; behind them afterwards."""
        begin = self.at
        self.at += count
        if self.at > self.end:
            raise ValueError("it ends too early, or a length in it is wrong")
        return begin

    def read(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def count(self, amount: int) -> int:
        self.items -= amount
        if self.items < 0:
            raise ValueError("it has too many entries")
        return amount

    def text(self) -> bytes:
        length = self.read("<Q")
        begin = self.skip(length)
        return self.data[begin : begin + min(length, MAX_NAME)]

    def whole(self) -> None:
        if self.data[:4] != b"GGUF" or self.data[4:8] not in (b"\2\0\0\0", b"\3\0\0\0"):
            raise ValueError("it does not begin like GGUF version 2 or 3, little-endian")
        self.skip(8)
        tensors, keys = self.count(self.read("<Q")), self.count(self.read("<Q"))
        alignment = 32
        for _ in range(keys):
            name, kind = self.text(), self.read("<I")
            if name == b"general.alignment" and kind == 4:
                alignment = struct.unpack_from("<I", self.data, self.at)[0]
            self.value(kind)
        if alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 16:
            raise ValueError(f"alignment {alignment}")
        spans = [self.tensor(alignment) for _ in range(tensors)]
        start = -(-self.at // alignment) * alignment
        spans.sort()
        if any(one[1] > two[0] for one, two in pairwise(spans)):
            raise ValueError("tensors overlap")
        if spans and start + spans[-1][1] > len(self.data):
            raise ValueError("it ends before its tensors do")

    def value(self, kind: int) -> None:
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, length = self.read("<I"), self.count(self.read("<Q"))
            if inner == STRING:
                for _ in range(length):
                    self.text()
            elif inner in WIDTH:
                self.skip(WIDTH[inner] * length)
            else:
                raise ValueError(f"an array of type {inner}")
        elif kind in WIDTH:
            self.skip(WIDTH[kind])
        else:
            raise ValueError(f"a value of type {kind}")

    def tensor(self, alignment: int) -> tuple[int, int]:
        """First and last byte of a tensor's data, counted from where data begins."""
        name = self.text()
        dims = [self.read("<Q") for _ in range(min(self.read("<I"), 5))]
        kind, offset = GGMLQuantizationType(self.read("<I")), self.read("<Q")
        block, size = GGML_QUANT_SIZES[kind]
        elements = 1
        for dim in dims:
            elements *= dim
        if not 1 <= len(dims) <= 4 or not elements or dims[0] % block or offset % alignment:
            raise ValueError(f"tensor {name[:100]!r} has shape {dims} at {offset}")
        return offset, offset + elements // block * size
