"""When each token of ``generate`` of transformers came, and what its picture took. Runs in any peer's environment."""

from __future__ import annotations

import functools
import time
from typing import Any

from prompts import chat_prompt
from protocol import Question, Reply


class TokenClock:
    """A streamer in the sense of transformers: it is handed the prompt first and then every token."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt = True

    def put(self, _value: Any) -> None:
        """Note when a token came."""
        if self._prompt:
            self._prompt = False
        else:
            self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to do."""


class VisionClock:
    """Times a model's own method that encodes pictures."""

    def __init__(self, owner: Any, method: str) -> None:
        self.seconds = 0.0
        inner = getattr(owner, method)

        @functools.wraps(inner)  # transformers looks at the method's parameters
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            return result

        setattr(owner, method, timed)


def ask(model: Any, processor: Any, vision: VisionClock, question: Question, checkpoint: str) -> Reply:
    """One answer of a model with the ``generate`` of transformers, greedy and of a fixed length."""
    from PIL import Image

    start = time.perf_counter()
    picture = Image.open(str(question.picture)).convert("RGB")
    prompt = chat_prompt(checkpoint, question.text)
    inputs = processor(text=prompt, images=[picture], return_tensors="pt")
    dtype = getattr(model, "dtype", None)
    inputs = inputs if dtype is None else inputs.to(dtype)
    prepared = time.perf_counter() - start
    clock, vision.seconds = TokenClock(), 0.0
    length = question.answer_tokens
    model.generate(**inputs, max_new_tokens=length, min_new_tokens=length, do_sample=False, streamer=clock)
    if len(clock.times) != length:
        raise RuntimeError(f"{len(clock.times)} tokens came instead of {length}")
    ids = inputs["input_ids"]
    first = clock.times[0] - start
    return Reply(
        first_token_s=first,
        prefill_s=first - prepared - vision.seconds,
        decode_s=clock.times[-1] - clock.times[0],
        prompt_tokens=int(ids.shape[1]),
        visual_tokens=int((ids == image_token_id(model.config)).sum()),
        answer_tokens=length,
        vision_s=prepared + vision.seconds,
    )


def image_token_id(config: Any) -> int:
    """The id that stands for a visual token."""
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    raise AttributeError("the configuration names no image token")
