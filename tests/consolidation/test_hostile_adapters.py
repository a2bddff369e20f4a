"""Adapters from strangers: whatever is in a file, it is read or refused, in bounded time and memory."""

import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from agent.adapters import Factors, Lora, read_peft
from agent.errors import ModelError
from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore
from consolidation.errors import AdapterError
from consolidation.layouts.gguf import read_gguf_adapter, write_gguf_adapter
from consolidation.layouts.mlx import read_mlx, write_mlx
from consolidation.layouts.peft import write_peft
from consolidation.portable import export, import_adapter
from tests.consolidation.adapting import ATTENTION, random_lora, stored, tiny_qwen2

REFUSED = (ModelError, AdapterError)
SECONDS = 2.0
MEMORY = 32 << 20
READERS: dict[str, Callable[[Path], Lora]] = {
    "peft": read_peft,
    "mlx": read_mlx,
    "gguf": lambda folder: read_gguf_adapter(folder / "adapter.gguf"),
}
FILE = {"peft": "adapter_model.safetensors", "mlx": "adapters.safetensors", "gguf": "adapter.gguf"}
LORA = random_lora(kinds=ATTENTION[:1], layers=(0, 1), rank=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("good")
    write_peft(LORA, root / "peft", "base")
    write_mlx(LORA, root / "mlx")
    write_gguf_adapter(LORA, root / "gguf" / "adapter.gguf")
    return {layout: root / layout for layout in READERS}


def read(layout: str, folder: Path) -> Lora | None:
    """The adapter, or None where it was refused; anything else, or too much time or memory, fails the test."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        return READERS[layout](folder)
    except REFUSED:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.monotonic() - began < SECONDS
        assert peak < MEMORY


def header(data: bytes, layout: str) -> int:
    """Where the tensors' bytes begin, roughly; what comes before is the interesting part."""
    return 8 + struct.unpack("<Q", data[:8])[0] if layout != "gguf" else min(700, len(data))


@pytest.mark.parametrize("layout", READERS)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoilt_file_is_read_or_refused(layout: str, folders: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    for path in folders[layout].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoilt = bytearray((folders[layout] / FILE[layout]).read_bytes())
    end = header(spoilt, layout)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end - 1))
        match data.draw(st.sampled_from(["flip", "fill", "cut", "insert", "number"])):
            case "flip":
                spoilt[at % max(1, len(spoilt))] ^= 1 << data.draw(st.integers(0, 7))
            case "fill":
                piece = data.draw(st.binary(min_size=1, max_size=16))
                spoilt[at : at + len(piece)] = piece
            case "cut":
                del spoilt[at + data.draw(st.integers(0, 8)) :]
            case "insert":
                spoilt[at:at] = data.draw(st.binary(min_size=1, max_size=16))
            case "number":
                value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
                spoilt[at : at + 8] = struct.pack("<Q", value)
        if not spoilt:
            spoilt = bytearray(b"\0")
    (tmp_path / FILE[layout]).write_bytes(spoilt)
    lora = read(layout, tmp_path)
    if lora is not None:
        lora.check("what was read")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoilt_configuration_is_read_or_refused(folders: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    for path in folders["mlx"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config: dict[str, Any] = json.loads((folders["mlx"] / "adapter_config.json").read_text())
    inside = data.draw(st.booleans())
    place = config["lora_parameters"] if inside else config
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora = read("mlx", tmp_path)
    if lora is not None:
        assert (lora.rank, lora.alpha) == (LORA.rank, LORA.alpha)


def tensors(**change: torch.Tensor) -> bytes:
    good = {}
    for path, f in LORA.layers.items():
        good |= {f"{path}.lora_a": f.a.T.contiguous(), f"{path}.lora_b": f.b.T.contiguous()}
    return save(good | {name.replace("__", "."): tensor for name, tensor in change.items()})


def with_header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + b"\0" * 64


A = "model.layers.0.self_attn.q_proj.lora_a"
HOSTILE_SAFETENSORS = {
    "empty": b"",
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of 99 MB that is not there": struct.pack("<Q", 99_000_000) + b"{}",
    "negative size": with_header(f'{{"{A}":{{"dtype":"F32","shape":[-1,2],"data_offsets":[0,64]}}}}'),
    "huge size": with_header(f'{{"{A}":{{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,64]}}}}'),
    "behind the end": with_header(f'{{"{A}":{{"dtype":"F32","shape":[8,2],"data_offsets":[0,640]}}}}'),
    "twice the same name": with_header(
        f'{{"{A}":{{"dtype":"F32","shape":[8,1],"data_offsets":[0,32]}},"{A}":{{"dtype":"F32","shape":[8,1],"data_offsets":[32,64]}}}}'
    ),
    "60,000 tensors of nothing": with_header(
        "{" + ",".join(f'"{i:030}.lora_a":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(60_000)) + "}"
    )[:-64],
    "no tensors": with_header("{}")[:-64],
    "deeply nested": with_header("[" * 50_000),
    "a path for a name": tensors(
        **{"../../etc/passwd.lora_a": torch.ones(256, 2), "../../etc/passwd.lora_b": torch.ones(2, 256)}
    ),
    "half a pair": tensors(extra__lora_a=torch.ones(256, 2)),
    "whole numbers": tensors(**{A: torch.ones(256, 2, dtype=torch.int64)}),
    "truth values": tensors(**{A: torch.ones(256, 2, dtype=torch.bool)}),
    "NaN": tensors(**{A: torch.full((256, 2), float("nan"))}),
    "infinite": tensors(**{A: torch.full((256, 2), float("inf"))}),
    "another rank": tensors(**{A: torch.ones(256, 3)}),
    "one dimension": tensors(**{A: torch.ones(512)}),
    "three dimensions": tensors(**{A: torch.ones(256, 2, 1)}),
    "no dimension": tensors(**{A: torch.tensor(1.0)}),
}


@pytest.mark.parametrize("case", HOSTILE_SAFETENSORS)
def test_hostile_safetensors_are_refused(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((folders["mlx"] / "adapter_config.json").read_bytes())
    (tmp_path / FILE["mlx"]).write_bytes(HOSTILE_SAFETENSORS[case])
    assert read("mlx", tmp_path) is None


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(
    *tensors: bytes, keys: tuple[bytes, ...] = (), counts: tuple[int, int] | None = None, begin: bytes = b"GGUF\3\0\0\0"
) -> bytes:
    known = [("general.architecture", "qwen2"), ("general.type", "adapter"), ("adapter.type", "lora")]
    entries = [text(key) + struct.pack("<I", 8) + text(value) for key, value in known]
    entries += [text("adapter.lora.alpha") + struct.pack("<If", 6, 4.0), *keys]
    data = begin + struct.pack("<QQ", *(counts or (len(tensors), len(entries)))) + b"".join(entries) + b"".join(tensors)
    return data + b"\0" * (-len(data) % 32) + struct.pack("<f", 0.5) * 1040


def tensor(name: str, dims: tuple[int, ...] = (256, 2), kind: int = 0, offset: int = 0, count: int | None = None) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims) if count is None else count, *dims, kind, offset)


Q_A, Q_B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
GOOD = (tensor(Q_A), tensor(Q_B, (2, 256), offset=2048))


def array(kind: int, length: int, rest: bytes = b"") -> bytes:
    return text("x") + struct.pack("<IIQ", 9, kind, length) + rest


HOSTILE_GGUF = {
    "empty": b"",
    "another beginning": gguf(*GOOD, begin=b"GGUG\3\0\0\0"),
    "version 1": gguf(*GOOD, begin=b"GGUF\1\0\0\0"),
    "big-endian": gguf(*GOOD, begin=b"GGUF\0\0\0\3"),
    "2^62 keys": gguf(*GOOD, counts=(2, 2**62)),
    "2^62 tensors": gguf(*GOOD, counts=(2**62, 4)),
    "an array of 2^62 numbers": gguf(*GOOD, keys=(array(4, 2**62),)),
    "an array of 2^62 texts": gguf(*GOOD, keys=(array(8, 2**62),)),
    "70,000 texts": gguf(*GOOD, keys=(array(8, 70_000, text("") * 70_000),)),
    "arrays of arrays": gguf(*GOOD, keys=(array(9, 1, struct.pack("<IQ", 9, 1) * 5_000),)),
    "a value of no type": gguf(*GOOD, keys=(text("x") + struct.pack("<I", 99),)),
    "a key of 2^63 bytes": gguf(*GOOD, keys=(struct.pack("<Q", 2**63),)),
    "twice the same key": gguf(*GOOD, keys=(text("general.type") + struct.pack("<I", 8) + text("adapter"),)),
    "a key that is no text": gguf(*GOOD, keys=(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1),)),
    "twice the same tensor": gguf(*GOOD, tensor(Q_A, (4, 2), offset=4096)),
    "a negative size": gguf(tensor(Q_A, (2**64 - 1, 2)), GOOD[1]),
    "a size whose product wraps": gguf(tensor(Q_A, (2**32, 2**32)), GOOD[1]),
    "no size": gguf(tensor(Q_A, (256, 0)), GOOD[1]),
    "no dimension": gguf(tensor(Q_A, ()), GOOD[1]),
    "2^32 dimensions": gguf(tensor(Q_A, count=2**32 - 1), GOOD[1]),
    "one dimension": gguf(tensor(Q_A, (512,)), GOOD[1]),
    "behind the end": gguf(GOOD[0], tensor(Q_B, (2, 256), offset=2**40)),
    "off the grid": gguf(GOOD[0], tensor(Q_B, (2, 256), offset=2049)),
    "on top of each other": gguf(GOOD[0], tensor(Q_B, (2, 256), offset=1024)),
    "alignment 0": gguf(*GOOD, keys=(text("general.alignment") + struct.pack("<II", 4, 0),)),
    "alignment 2^31": gguf(*GOOD, keys=(text("general.alignment") + struct.pack("<II", 4, 2**31),)),
    "an unknown type": gguf(tensor(Q_A, kind=4_000), GOOD[1]),
    "a quantised type": gguf(tensor(Q_A, kind=8), GOOD[1]),
    "whole numbers": gguf(tensor(Q_A, kind=26), GOOD[1]),
    "another rank": gguf(tensor(Q_A, (170, 3)), GOOD[1]),
    "half a pair": gguf(GOOD[0]),
    "a path for a name": gguf(tensor("../../etc/passwd.weight.lora_a"), GOOD[1]),
    "no tensors": gguf(),
    "another architecture": gguf(*GOOD).replace(b"qwen2", b"llama"),
    "no adapter": gguf(*GOOD).replace(b"adapter", b"adaptor", 2),
    "alpha 0": gguf(*GOOD).replace(struct.pack("<If", 6, 4.0), struct.pack("<If", 6, 0.0)),
    "alpha NaN": gguf(*GOOD).replace(struct.pack("<If", 6, 4.0), struct.pack("<If", 6, float("nan"))),
    "NaN": gguf(*GOOD).replace(struct.pack("<f", 0.5), struct.pack("<f", float("nan"))),
    "no effect": gguf(*GOOD).replace(struct.pack("<f", 0.5), struct.pack("<f", 0.0)),
}


def test_the_file_that_the_hostile_ones_are_made_from_is_good(tmp_path: Path) -> None:
    (tmp_path / "adapter.gguf").write_bytes(gguf(*GOOD))
    lora = read("gguf", tmp_path)
    assert lora is not None
    assert lora.layers["model.layers.0.self_attn.q_proj"].a.shape == (2, 256)


@pytest.mark.parametrize("case", HOSTILE_GGUF)
def test_hostile_gguf_is_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "adapter.gguf").write_bytes(HOSTILE_GGUF[case])
    assert read("gguf", tmp_path) is None


@pytest.mark.parametrize("layout", ["mlx", "gguf"])
def test_a_huge_file_is_not_read(layout: str, folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders[layout].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    os.truncate(tmp_path / FILE[layout], 5 << 30)  # a sparse file: it takes no room
    assert read(layout, tmp_path) is None


# Into the store, and out of it


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def adapter(store: AdapterStore) -> Adapter:
    return stored(store, LORA, WEIGHTS)


@pytest.mark.parametrize("layout", READERS)
def test_what_was_exported_can_be_imported(layout: str, store: AdapterStore, adapter: Adapter, tmp_path: Path) -> None:
    written = export(adapter, layout, tmp_path / "out")
    assert {FILE[layout], "manifest.json"} <= {path.name for path in written}
    if layout == "peft":
        assert (tmp_path / "out" / FILE["peft"]).read_bytes() == (adapter.folder / FILE["peft"]).read_bytes()
    back = import_adapter(store, tmp_path / "out", adapter.manifest.base, WEIGHTS, scope=("shop",))
    one, two = read_peft(adapter.folder), read_peft(back.folder)
    assert (one.rank, one.alpha) == (two.rank, two.alpha) == (back.manifest.rank, back.manifest.alpha)
    assert all(f.a.equal(two.layers[path].a) and f.b.equal(two.layers[path].b) for path, f in one.layers.items())
    assert (back.manifest.strategy, back.manifest.scope, back.manifest.targets) == ("imported", ("shop",), ("q_proj",))
    assert back.standing.state == "candidate"


def test_importing_twice_gives_one_adapter(store: AdapterStore, folders: dict[str, Path]) -> None:
    one = import_adapter(store, folders["mlx"], "b")
    assert import_adapter(store, folders["gguf"] / "adapter.gguf", "b") == one == import_adapter(store, folders["peft"], "b")


@pytest.mark.parametrize("layout", READERS)
def test_an_adapter_of_another_base_is_not_imported(layout: str, store: AdapterStore, adapter: Adapter, tmp_path: Path) -> None:
    base = tiny_qwen2(tmp_path / "base", tied=True)
    export(adapter, layout, tmp_path / "out")
    with pytest.raises(AdapterError, match=r"was trained on base model \w+, not on \w+"):
        import_adapter(store, tmp_path / "out", folder_hash(base), base)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(AdapterError, match="belongs to another base model"):
        import_adapter(store, tmp_path / "out", folder_hash(base), base)
    assert [a.id for a in store.list()] == [adapter.id]


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "x.PKL"])
def test_a_pickle_is_never_opened(name: str, store: AdapterStore, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in folders["peft"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/h3-was-here'\ntR.")
    for path in (folder, folder / name):
        with pytest.raises(AdapterError, match="is a pickle, which can run code"):
            import_adapter(store, path, "b")


@pytest.mark.parametrize("layout", READERS)
def test_a_pipe_does_not_hang_the_import(layout: str, store: AdapterStore, folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders[layout].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / FILE[layout]).unlink()
    os.mkfifo(tmp_path / FILE[layout])
    with pytest.raises(AdapterError, match="no regular file"):
        import_adapter(store, tmp_path, "b")


def test_an_empty_folder_is_no_adapter(store: AdapterStore, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter there"):
        import_adapter(store, tmp_path, "b")
    with pytest.raises(AdapterError, match="No such file"):
        import_adapter(store, tmp_path / "missing", "b")


HOSTILE_PEFT = {
    "a rank of truth": {"r": True},
    "an alpha of 400 digits": {"lora_alpha": 10**400},
    "an alpha that is no number": {"lora_alpha": "eight"},
    "PiSSA changes the base": {"init_lora_weights": "pissa"},
    "layers twice": {"layer_replication": [[0, 2], [0, 2]]},
}


@pytest.mark.parametrize("case", HOSTILE_PEFT)
def test_nothing_of_a_hostile_configuration_comes_in(
    case: str, store: AdapterStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    config = json.loads((folders["peft"] / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | HOSTILE_PEFT[case]))
    (folder / FILE["peft"]).write_bytes((folders["peft"] / FILE["peft"]).read_bytes())
    try:
        found = import_adapter(store, folder, "b")
    except REFUSED:
        return
    written = json.loads((found.folder / "adapter_config.json").read_text())
    assert written == config | {"base_model_name_or_path": "b"}


def test_whole_numbers_are_not_imported(store: AdapterStore, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((folders["peft"] / "adapter_config.json").read_bytes())
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    ones = {f"{name}A.weight": torch.ones(2, 256, dtype=torch.int8), f"{name}B.weight": torch.ones(256, 2, dtype=torch.int8)}
    (folder / FILE["peft"]).write_bytes(save(ones))
    with pytest.raises(REFUSED, match=r"int8|float"):
        import_adapter(store, folder, "b")


def test_an_unknown_layout_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="choose one of peft, mlx, gguf"):
        export(adapter, "onnx", tmp_path / "out")


@pytest.mark.parametrize("case", HOSTILE_PEFT)
def test_a_hostile_configuration_is_not_served(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["peft"] / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | HOSTILE_PEFT[case]))
    (tmp_path / FILE["peft"]).write_bytes((folders["peft"] / FILE["peft"]).read_bytes())
    with pytest.raises(ModelError):
        read_peft(tmp_path)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.ones(2, 256, dtype=torch.int8), torch.ones(256, 2, dtype=torch.int8)),
        (torch.tensor([[1.0], [0.0]]).expand(2, 256), torch.tensor([[0.0, 1.0]]).expand(256, 2)),
    ],
    ids=["whole numbers", "factors that never meet"],
)
def test_factors_without_meaning_are_not_served(a: torch.Tensor, b: torch.Tensor) -> None:
    with pytest.raises(ModelError):
        Lora(2, 4.0, {"model.layers.0.self_attn.q_proj": Factors(a, b)}).check("it")
