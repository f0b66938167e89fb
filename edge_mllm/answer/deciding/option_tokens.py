"""Options as token ids, and whether a model can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.decoding.options import option_ids
from edge_mllm.answer.messages import assistant_message
from edge_mllm.answer.pipeline import Pipeline
from edge_mllm.arrays import IntArray
from edge_mllm.errors import PromptError


def tokens_of_options(
    pipeline: Pipeline, asked: Conversation, options: Sequence[str], *, whole: bool = True
) -> list[IntArray]:
    """Token ids int64 [n] of each option as the answer to a conversation; the one that ends it where it is ``whole``.

    Raises:
        PromptError: The model's template does not continue the prompt with an option, or it holds the end of an answer.
    """
    prompt = pipeline.prompt(asked).ids
    reader = pipeline.parts.reader
    stops = list(reader.stop_token_ids)
    found = []
    for option in options:
        said = Conversation([*asked.messages, assistant_message(option)], asked.pictures)
        ids = option_ids(prompt, pipeline.prompt(said).ids, stops, option)
        if len(ids) < 2 or np.isin(reader.text_ids(option), stops).any():
            raise PromptError(f"the option {option!r} ends the answer for this model; use other words")
        found.append(ids if whole else ids[:-1])
    return found


def tell_apart(options: Sequence[str], ids: Sequence[IntArray]) -> None:
    """Refuse options of which one answer would be both.

    Raises:
        PromptError: Two are the same tokens, or one begins with another and only beginnings are scored.
    """
    for place, own in enumerate(ids):
        for other, longer in enumerate(ids):
            if other == place or not np.array_equal(own, longer[: len(own)]):
                continue
            if len(own) == len(longer):
                same = f"the option {options[place]!r} is the same to this model as {options[other]!r}"
                raise PromptError(f"{same}; leave one out")
            begun = f"the option {options[place]!r} is the beginning of {options[other]!r}"
            raise PromptError(f"{begun}; score whole answers (`whole`) or use other words")
