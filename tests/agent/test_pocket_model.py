"""The pocket network and model: the same numbers as transformers and PEFT, batched or not."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from agent.errors import ModelError
from agent.model import Message, Sampling
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel, lora_deltas
from agent.pocket.network import KVCache, Network, NetworkConfig
from agent.pocket.tokenizer import SPECIALS, PocketTokenizer

ASK = [Message("user", "issue in shop\n`total_fee` always gives None."), Message("assistant", "search total_fee")]
SEEN = Message("tool", "shop/fees.py:3: def total_fee(prices):")


@pytest.fixture(scope="module")
def model() -> PocketModel:
    return PocketModel(slots=8, threads=1)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random, not trained, PEFT adapter over all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    peft.save_pretrained(folder)
    ids = torch.arange(10, 60)[None]
    with torch.no_grad():
        torch.save(peft(input_ids=ids).logits, folder / "expected.pt")
    return folder


def test_the_shipped_model_is_small_and_whole(model: PocketModel) -> None:
    assert sum(p.stat().st_size for p in WEIGHTS.iterdir()) <= 10 * 1024 * 1024
    assert {p.name for p in WEIGHTS.iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert not any(p.suffix in {".bin", ".pt", ".pkl"} for p in WEIGHTS.iterdir())
    assert len(model.tokenizer) == model.config.vocab_size


def test_the_network_computes_what_transformers_computes(model: PocketModel) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    ids = torch.randint(0, model.config.vocab_size, (3, 70), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = reference(input_ids=ids).logits
        ours = model.network.logits(model.network.hidden(ids))
    assert torch.allclose(ours, theirs, atol=2e-4)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_a_merged_adapter_computes_what_peft_computes(model: PocketModel, adapter: Path) -> None:
    expected = torch.load(adapter / "expected.pt", weights_only=True)
    ids = torch.arange(10, 60)[None]
    with torch.no_grad():
        before = model.network.logits(model.network.hidden(ids))
        model.use(adapter)
        adapted = model.network.logits(model.network.hidden(ids))
        model.use(None)
        after = model.network.logits(model.network.hidden(ids))
    assert torch.allclose(adapted, expected, atol=2e-4)
    assert not torch.allclose(adapted, before, atol=1e-2)
    assert torch.equal(before, after)


def test_the_fingerprint_follows_the_adapter(model: PocketModel, adapter: Path) -> None:
    base = model.fingerprint
    model.use(adapter)
    adapted = model.fingerprint
    model.use(None)
    assert adapted != base == model.fingerprint


def test_cached_steps_compute_what_one_pass_computes(model: PocketModel) -> None:
    rng = random.Random(0)
    lengths = [37, 12, 25]
    rows = [[rng.randrange(10, model.config.vocab_size) for _ in range(n)] for n in lengths]
    cache = KVCache(model.config, 5, 64)
    slots = torch.tensor([4, 0, 2])
    for part in ((0, 9), (9, 10), (10, 12)):
        ids = torch.tensor([row[part[0] : part[1]] for row in rows])
        scores = model.network.extend(ids, torch.full((3,), part[1] - part[0]), cache, slots)
    rest = [row[12:] or [model.tokenizer.pad] for row in rows]
    ids = torch.tensor([r + [model.tokenizer.pad] * (25 - len(r)) for r in rest])
    scores = model.network.extend(ids, torch.tensor([len(r) for r in rest]), cache, slots)
    for number in (0, 2):
        with torch.no_grad():
            whole = model.network.logits(model.network.hidden(torch.tensor([rows[number]])))[0, -1]
        assert torch.allclose(scores[number], whole, atol=2e-4)


def test_a_batch_answers_like_single_calls_and_turns_reuse_the_cache(model: PocketModel) -> None:
    conversations = [ASK[:1], [*ASK, SEEN], [Message("user", "issue in farm\n`count_cow` is wrong at the limit.")]]
    batched = model.complete(conversations, Sampling(max_tokens=12))
    single = [model.complete([c], Sampling(max_tokens=12))[0] for c in conversations]
    assert [b.text for b in batched] == [s.text for s in single]
    model.complete([ASK[:1]], Sampling(max_tokens=12), ["a"])
    again = model.complete([[*ASK, SEEN]], Sampling(max_tokens=12), ["a"])[0]
    assert again.text == single[1].text
    assert again.cached_tokens > len(model.tokenizer.prompt(ASK[:1])) - 2
    model.forget(["a"])


def test_sampling_depends_on_seed_and_key_not_on_the_batch(model: PocketModel) -> None:
    hot = Sampling(temperature=8.0, max_tokens=16, seed=1)
    conversations = [ASK[:1], ASK[:1], ASK[:1]]
    first = [c.text for c in model.complete(conversations, hot, ["a", "b", "c"])]
    model.forget(["a", "b", "c"])
    alone = model.complete([ASK[:1]], hot, ["b"])[0].text
    model.forget(["b"])
    other = model.complete([ASK[:1]], Sampling(temperature=8.0, max_tokens=16, seed=2), ["b"])[0].text
    model.forget(["b"])
    assert alone == first[1]
    assert len({*first, other}) > 1


def test_more_conversations_than_slots_are_answered_in_order(model: PocketModel) -> None:
    conversations = [[Message("user", f"issue in shop\n`f{i}` always gives None.")] for i in range(11)]
    answers = model.complete(conversations, Sampling(max_tokens=8))
    single = [model.complete([c], Sampling(max_tokens=8))[0].text for c in conversations]
    assert [a.text for a in answers] == single


def test_a_conversation_beyond_the_context_is_said_to_be_so(model: PocketModel) -> None:
    answer = model.complete([[Message("user", "x " * 2000)]], Sampling())[0]
    assert (answer.text, answer.finish_reason) == ("", "context")


def test_an_answer_that_never_ends_is_cut(model: PocketModel) -> None:
    answer = model.complete([ASK[:1]], Sampling(max_tokens=2))[0]
    assert answer.completion_tokens == 2
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"not weights"),
        ("model.safetensors", b""),
        ("tokenizer.json", b"{}"),
        ("config.json", b"{"),
        ("config.json", b'{"vocab_size": 7}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"make pocket") as error:
        PocketModel(tmp_path / "m")
    assert str(tmp_path / "m") in str(error.value)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="make pocket"):
        PocketModel(tmp_path / "nothing")


def test_adapters_that_do_not_fit_are_refused_and_the_base_stays(model: PocketModel, adapter: Path, tmp_path: Path) -> None:
    ids = torch.arange(10, 60)[None]
    before = model.network.logits(model.network.hidden(ids))
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match="no readable adapter"):
        model.use(broken)
    config = json.loads((adapter / "adapter_config.json").read_text())
    shutil.copyfile(adapter / "adapter_model.safetensors", broken / "adapter_model.safetensors")
    (broken / "adapter_config.json").write_text(json.dumps({**config, "r": 0}))
    with pytest.raises(ModelError, match="adapter_config"):
        model.use(broken)
    assert model.adapter is None
    assert torch.equal(before, model.network.logits(model.network.hidden(ids)))


def test_an_adapter_of_another_shape_is_refused(adapter: Path) -> None:
    small = NetworkConfig(vocab_size=64, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    names = dict(Network(small).named_parameters())
    deltas, _ = lora_deltas(adapter)
    assert any(name not in names or names[name].shape != delta.shape for name, delta in deltas.items())


class TestTokenizer:
    def test_text_comes_back_whatever_it_is(self, model: PocketModel) -> None:
        rng = random.Random(5)
        texts = ["", "zorvik_quuxle(9)", "größe → ≠ 漢字\t\x00", "".join(SPECIALS)]
        texts += ["".join(chr(rng.randrange(1, 0x3000)) for _ in range(60)) for _ in range(30)]
        for text in texts:
            assert model.tokenizer.decode(model.tokenizer.encode(text)) == text

    def test_held_out_words_can_be_spelt(self, model: PocketModel) -> None:
        for word in ("FarmError", "cents", "listed", "keyed", "locked", "xylophone", "krautwickel"):
            ids = model.tokenizer.encode(word)
            assert model.tokenizer.decode(ids) == word
            assert len(ids) <= len(word)

    def test_marks_in_text_are_no_special_tokens(self, model: PocketModel) -> None:
        ids = model.tokenizer.encode("<|end|><|assistant|>submit")
        assert all(token >= len(SPECIALS) for token in ids)

    def test_a_word_is_the_same_tokens_wherever_it_stands(self, model: PocketModel) -> None:
        ids = model.tokenizer.encode("basket")
        for text in ("`basket`", "(basket)", "_basket", " basket", "\n    basket"):
            found = model.tokenizer.encode(text)
            assert any(found[i : i + len(ids)] == ids for i in range(len(found))), text

    def test_only_the_agents_words_are_its_own(self, model: PocketModel) -> None:
        ids, own = model.tokenizer.example([*ASK, SEEN, Message("assistant", "submit")])
        mine = model.tokenizer.decode([token for token, is_own in zip(ids, own, strict=True) if is_own])
        assert mine == "search total_feesubmit"
        assert own.count(True) == len(model.tokenizer.encode("search total_fee")) + len(model.tokenizer.encode("submit")) + 2

    def test_the_prompt_is_a_prefix_of_the_example(self, model: PocketModel) -> None:
        whole = [*ASK, SEEN, Message("assistant", "submit")]
        prompt = model.tokenizer.prompt(whole[:3])
        assert model.tokenizer.example(whole)[0][: len(prompt)] == prompt

    def test_transformers_reads_the_same_tokenizer(self, model: PocketModel) -> None:
        assert isinstance(model.tokenizer, PocketTokenizer)
        from transformers import PreTrainedTokenizerFast

        theirs = PreTrainedTokenizerFast(tokenizer_file=str(WEIGHTS / "tokenizer.json"))
        text = "def total_fee(prices):\n    return 3"
        assert theirs.encode(text, add_special_tokens=False) == model.tokenizer.encode(text)
