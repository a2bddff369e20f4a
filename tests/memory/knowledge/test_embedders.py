from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import memory
from memory.errors import KnowledgeError
from memory.knowledge.embedders import WELL_KNOWN, Embedder, HashingEmbedder, open_embedder

ROOT = Path(memory.__file__).parent.parent
HOSTILE = ["", " \n", "a\ud800b\0c\udfff", "\u202e🦉 ünï", "def " * 3, "x" * 1_000_000, "fee, " * 200_000]
TEXTS = [
    "TypeError in shop/fees.py: total_fee() gets an unexpected keyword argument 'rate'",
    "total_fee of shop/fees.py should take a rate",
    "Documentation misses the paginator of the admin pages",
]


def saved_model(folder: Path, seed: int = 0) -> Path:
    """A tiny BERT with random weights, as sentence-transformers saves one."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    bert = folder / "bert"
    bert.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        "fee",
        "total",
    ]
    (bert / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(bert / "vocab.txt"), model_max_length=64).save_pretrained(bert)
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)).save_pretrained(bert)
    SentenceTransformer(modules=[Transformer(str(bert)), Pooling(16)]).save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["hashing", "sentence"])
def choice(request: pytest.FixtureRequest) -> str:
    return "hashing" if request.param == "hashing" else f"sentence:{request.getfixturevalue('folder')}"


@pytest.fixture
def embedder(choice: str) -> Embedder:
    return open_embedder(choice)[0]


# The contract of every embedder.


def test_every_text_has_a_vector_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed([*TEXTS, *HOSTILE])
    assert vectors.shape == (len(TEXTS) + len(HOSTILE), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert 0 < embedder.floor < 1


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_a_batch_gives_what_each_text_gives_alone(choice: str, embedder: Embedder) -> None:
    texts = [f"{text} {n}" for n in range(15) for text in TEXTS]  # more than one batch of the model
    alone = open_embedder(choice)[0]
    np.testing.assert_allclose(embedder.embed(texts), np.vstack([alone.embed([text]) for text in texts]), atol=1e-5)
    np.testing.assert_array_equal(embedder.embed([texts[3], texts[3]]), embedder.embed([texts[3]]).repeat(2, axis=0))


def test_another_process_gets_the_same_vectors_under_the_same_name(choice: str, embedder: Embedder, tmp_path: Path) -> None:
    code = (
        "import sys, numpy; from memory.knowledge.embedders import open_embedder; e = open_embedder(sys.argv[1])[0]; "
        "numpy.save(sys.argv[2], e.embed(sys.argv[3:])); print(e.name)"
    )
    command = [sys.executable, "-c", code, choice, str(tmp_path / "vectors.npy"), *TEXTS]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == embedder.name
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), embedder.embed(TEXTS), atol=1e-6)


# Hashing.


def test_hashing_finds_what_shares_names_nearer_than_what_does_not() -> None:
    embedder = HashingEmbedder()
    vectors = embedder.embed([*TEXTS, "TOTAL_FEES"])
    assert vectors[0] @ vectors[1] > embedder.floor > vectors[0] @ vectors[2]
    assert vectors[3] @ vectors[1] > embedder.floor, "a name that is spelt a little otherwise"


def test_hashing_gives_what_its_name_has_always_stood_for() -> None:
    vector = HashingEmbedder().embed(["total_fee"])[0]
    assert HashingEmbedder.name == "hashing-1-384"
    assert set(np.argsort(-abs(vector))[:3]) == {328, 175, 138}, "the vectors have changed: give it a new name"


# Sentence-transformers.


def test_a_models_name_tells_its_weights_and_not_where_it_lies(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "model"
    moved.symlink_to(folder)
    other = saved_model(tmp_path / "other", seed=1)
    names = [open_embedder(f"sentence:{place}")[0].name for place in (folder, moved, other)]
    assert names[0] == names[1] != names[2]


def no_folder(_: Path) -> None: ...


def empty(place: Path) -> None:
    place.mkdir()


def hostile(place: Path) -> None:
    place.mkdir()
    for name in ("modules.json", "config.json", "tokenizer.json", "model.safetensors"):
        (place / name).write_bytes(b"\x80\x04garbage{[")


@pytest.mark.parametrize("make", [no_folder, empty, hostile])
def test_a_model_that_cannot_be_loaded_is_one_error_that_says_what_to_do(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "model")
    with pytest.raises(KnowledgeError, match=r"cannot be loaded.*`knowledge\.embedder`"):
        open_embedder(f"sentence:{tmp_path / 'model'}")


# Choosing.


@pytest.mark.parametrize("choice", ["", "hash", "sentence:", "Auto"])
def test_an_unknown_choice_names_those_there_are(choice: str) -> None:
    with pytest.raises(KnowledgeError, match="hashing, sentence:NAME_OR_FOLDER or auto"):
        open_embedder(choice)


def cached(hub: Path, model: Path) -> None:
    """Lay a model where the hub's client keeps what it downloaded."""
    place = hub / f"models--{WELL_KNOWN.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    (place / "snapshots").mkdir()
    (place / "snapshots" / ("0" * 40)).symlink_to(model)


@pytest.mark.parametrize("there", ["nothing", "model", "damaged"])
def test_auto_takes_the_well_known_model_only_where_it_is_and_works(
    there: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address) or [])
    if there == "model":
        cached(tmp_path, folder)
    elif there == "damaged":
        hostile(tmp_path / "damaged")
        cached(tmp_path, tmp_path / "damaged")
    embedder, why = open_embedder("auto")
    assert embedder.name.startswith("sentence:all-MiniLM-L6-v2@" if there == "model" else HashingEmbedder.name)
    assert {"nothing": "is not on this machine", "model": "is on this machine", "damaged": "could not be loaded"}[there] in why
    assert asked == [], "it asked the network"
