"""From conversations to token ids and back, as the model's own chat template has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from agent.errors import ModelError
from agent.model import Message, Speech
from agent.models.thinking import BEGIN
from agent.pocket.tokenizer import END, PocketTokenizer


class ChatTokenizer(Protocol):
    """What engines and trainers need; `stops` are the ids that end a turn."""

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a turn."""
        ...

    @property
    def pad(self) -> int:
        """Id that fills up batches."""
        ...

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation up to the point where the assistant speaks."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        ...

    def example(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """A conversation as a training example: ids, and which of them are the agent's own words."""
        ...


class TemplateTokenizer:
    """The tokenizer of a downloaded model, with the chat template that came with it.

    Observations are given as the user's messages, which every template knows. Marks of the template inside a message
    are broken up by an invisible space, so that no file can speak in another role.

    Raises:
        ModelError: if there is none, or it has no chat template.
    """

    def __init__(self, folder: Path, think: bool | None = None) -> None:
        from transformers import AutoTokenizer

        self._folder = folder
        self._options = {} if think is None else {"enable_thinking": think}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises whatever it likes
            raise ModelError(f"{folder}: no readable tokenizer ({str(error)[:300]}); download the model again") from error
        if not self._tokenizer.chat_template:
            raise ModelError(f"{folder}: the model has no chat template; choose an instruction-tuned one")
        self._marks = tuple(str(token) for token in self._tokenizer.added_tokens_decoder.values() if token.special)
        self.stops = frozenset(self._stop_ids())
        self.pad = int(self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else min(self.stops))
        self.opens_thought = self._text([Message("user", "?")], True).rstrip().endswith(BEGIN)

    def _stop_ids(self) -> set[int]:
        found: set[int] = {int(self._tokenizer.eos_token_id)} if self._tokenizer.eos_token_id is not None else set()
        path = self._folder / "generation_config.json"
        if path.is_file():
            try:
                given = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            except (OSError, ValueError, AttributeError, RecursionError) as error:
                raise ModelError(f"{path}: not readable ({str(error)[:300]}); download the model again") from error
            found |= {i for i in (given if isinstance(given, list) else [given]) if isinstance(i, int)}
        if not found:
            raise ModelError(f"{self._folder}: the model names no token that ends a turn")
        return found

    def _text(self, messages: Sequence[Message], prompt: bool) -> str:
        turns = [{"role": "user" if m.role == "tool" else m.role, "content": self._plain(m.content)} for m in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **self._options)
            )
        except Exception as error:  # a template is a program, and can refuse a conversation
            raise ModelError(f"{self._folder}: the chat template refuses the conversation ({error})") from error

    def _plain(self, content: str) -> str:
        text = content.encode("utf-8", "replace").decode()
        for mark in self._marks:
            text = text.replace(mark, f"{mark[0]}\u200b{mark[1:]}")
        return text

    def _ids(self, text: str) -> list[int]:
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatTokenizer`."""
        return self._ids(self._text(messages, True))

    def decode(self, ids: Sequence[int]) -> str:
        """See `ChatTokenizer`."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def example(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatTokenizer`; own words are what the template writes for the assistant, up to the end of its turn.

        Raises:
            ModelError: if the template changes earlier turns when later ones come, so that no mask would be true.
        """
        ids: list[int] = []
        own: list[bool] = []
        before = ""
        for at, message in enumerate(messages):
            if message.role != "assistant":
                continue
            for stop, mine in ((at, False), (at + 1, True)):
                text = self._text(messages[:stop], not mine)
                if not text.startswith(before):
                    raise ModelError(
                        f"{self._folder}: the chat template rewrites earlier turns; it cannot be trained on as it is"
                    )
                whole = self._ids(text)
                fresh = whole[len(ids) :] if whole[: len(ids)] == ids else self._ids(text[len(before) :])
                ids += fresh
                own += _until_stop(fresh, self.stops) if mine else [False] * len(fresh)
                before = text
        return ids, own


def _until_stop(ids: Sequence[int], stops: frozenset[int]) -> list[bool]:
    """The agent's words are all up to and with the id that ends the turn; a line break behind it is not."""
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
    return [i <= end for i in range(len(ids))]


def tokenizer_of(folder: Path, think: bool | None = None) -> ChatTokenizer:
    """The tokenizer of a model folder: the pocket model's own, or any with a chat template."""
    path = folder / "tokenizer.json"
    if (
        path.is_file()
        and END in path.read_text(encoding="utf-8", errors="replace")
        and not (folder / "tokenizer_config.json").exists()
    ):
        return PocketTokenizer(path)
    return TemplateTokenizer(folder, think)


def speech_of(tokenizer: ChatTokenizer) -> Speech:
    """How a model with these weights calls tools: as text, as nights train it; tersely if it was trained to."""
    return "terse" if isinstance(tokenizer, PocketTokenizer) else "text"
