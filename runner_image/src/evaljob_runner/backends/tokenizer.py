"""The tokenizer of a local checkpoint, as Hugging Face transformers reads it."""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from evaljob.names import Reason
from evaljob_runner.backends.base import TokenIds
from evaljob_runner.errors import Fatal


class HuggingFaceTokenizer:
    """A tokenizer of transformers, without state between calls.

    Args:
        folder: the checkpoint.
        marks: texts that answers show even where they are special tokens.

    Raises:
        Fatal: BadConfiguration, when the folder holds none.
    """

    def __init__(self, folder: Path, marks: tuple[str, ...] = ()) -> None:
        try:
            self._inner = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise Fatal(
                Reason.BAD_CONFIGURATION, f"the model's tokenizer cannot be loaded: {str(error)[:300]}"
            ) from error
        self._bos: str | None = self._inner.bos_token
        self.bos_id: int | None = self._inner.bos_token_id
        """The token that begins a text, if the model has one."""
        self._shown = frozenset(filter(self._hidden, chain.from_iterable(map(self._plain, marks))))

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, if the model has one."""
        found: int | None = self._inner.eos_token_id
        return found

    @property
    def prefix_id(self) -> int | None:
        """What stands for an empty context: BOS, else EOS."""
        return self.eos_id if self.bos_id is None else self.bos_id

    @property
    def window(self) -> int | None:
        """The tokenizer's own limit; transformers writes 10**30 for "none"."""
        limit = int(self._inner.model_max_length)
        return limit if limit < 10**9 else None

    def special_ids(self, stops: tuple[str, ...]) -> list[int]:
        """Stop texts that are one special token: they never show in a text, and end an answer by their id."""
        encoded = map(self._plain, stops)
        return [ids[0] for ids in encoded if len(ids) == 1 and self._hidden(ids[0])]

    def _hidden(self, token: int) -> bool:
        """Whether texts leave it out. `all_special_ids` does not name all of these tokens."""
        return not self._text((token,), special=False) and bool(self._text((token,), special=True))

    def encode(self, text: str, *, special: bool) -> TokenIds:
        """Token ids; a text that begins with BOS gets no second one."""
        add = special and not (self._bos and text.startswith(self._bos))
        return tuple(self._inner.encode(text, add_special_tokens=add))

    def _plain(self, text: str) -> TokenIds:
        return tuple(self._inner.encode(text, add_special_tokens=False))

    def decode(self, ids: TokenIds) -> str:
        """Text without special tokens but those of the marks, and without any tidying of spaces."""
        parts = groupby(ids, key=self._shown.__contains__)
        return "".join(self._text(tuple(part), special=shown) for shown, part in parts)

    def _text(self, ids: TokenIds, *, special: bool) -> str:
        text: str = self._inner.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    @cached_property
    def piece(self) -> Callable[[int], str]:
        """The text of a token that stands alone; each is decoded once."""
        return cache(lambda token: self.decode((token,)))

    def render(self, messages: tuple[Mapping[str, Any], ...], date: dt.date, **template_args: Any) -> str:  # noqa: ANN401
        """The conversation through the chat template, with its clock stopped at `date`."""
        if not self._inner.chat_template:
            raise Fatal(
                Reason.BAD_CONFIGURATION,
                "promptFormat Chat needs a chat template, the model's tokenizer has none: use promptFormat Text",
            )
        try:
            text: str = self._inner.apply_chat_template(
                [dict(m) for m in messages],
                tokenize=False,
                add_generation_prompt=True,
                **template_args | {"strftime_now": date.strftime},
            )
        except TemplateError as error:
            raise Fatal(
                Reason.BAD_DATA, f"the chat template refuses the messages: {str(error)[:300]}"
            ) from error
        return text
