"""The pocket tokenizer: byte-level BPE over a split that suits short Python programs.

An identifier word is always its own piece, whatever stands before it, so that copying a name
from an issue into code means repeating the same tokens. A line break takes its indentation
along; digits are single.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from agent.errors import ModelError
from agent.model import Message, Role

END = "<|end|>"
PAD = "<|pad|>"
ROLES: dict[Role, str] = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>"}
SPECIALS = (PAD, END, *ROLES.values())
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_PHRASES = (
    r'"""',
    r"FAILED test_",
    r" but was ",
    r" failed, ",
    r" passed",
    r"issue in ",
    r"past case\n",
    r"\):",
    r", ",
    r"\n *",
    r"\| *",
    r" ?(?:return|for|def|if|not|in|import|from|raise|else|and|or|class) ",
    r" ?(?:\+=|-=|==|!=|<=|>=|//|[+\-*/%<>=]) ?",
    r" (?:the|of|to|is|be|by|it|its|too|and|at|none|there|are|between|should|must|gives|wrong|thing|comes|out|always|"
    r"never|when|fails|crashes|missing|back|hands|what|above|below|far|first|last|whether|ends|included|under)(?![a-z_])",
    r"[A-Z]?[a-z]+",
    r"[A-Z]+",
    r"\d",
)
SPLIT = "|".join(_PHRASES)


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn the merges from texts; deterministic for the same texts in the same order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=20,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class PocketTokenizer:
    """Text and conversations to token ids and back.

    Raises:
        ModelError: if the file is missing or no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise ModelError(
                f"{path}: not a tokenizer ({error}); restore the file from the repository or run `make pocket`"
            ) from error
        vocabulary = self._tokenizer.get_vocab()
        ids: dict[str, int] = {token: vocabulary.get(token, -1) for token in SPECIALS}
        if sorted(ids.values()) != list(range(len(SPECIALS))):
            raise ModelError(f"{path}: special tokens are missing; restore the file from the repository or run `make pocket`")
        self.end = ids[END]
        self.pad = ids[PAD]
        self.specials = len(SPECIALS)
        self.stops = frozenset(range(self.specials))
        self._roles = {role: ids[token] for role, token in ROLES.items()}
        self._tokenizer.encode_special_tokens = True

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; role marks inside it are text, never special tokens, and halves of surrogate pairs are `?`."""
        ids: list[int] = self._tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def message(self, message: Message) -> list[int]:
        """One whole message: role, content, end."""
        return [self._roles[message.role], *self.encode(message.content), self.end]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation up to the point where the assistant speaks."""
        return [token for message in messages for token in self.message(message)] + [self._roles["assistant"]]

    def example(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """A conversation as a training example: ids, and which of them are the agent's own words."""
        ids: list[int] = []
        own: list[bool] = []
        for message in messages:
            tokens = self.message(message)
            ids += tokens
            own += [False] + [message.role == "assistant"] * (len(tokens) - 1)
        return ids, own
