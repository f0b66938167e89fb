"""One answer, timed stage by stage. The runtime's own records are used wherever it keeps them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edge_mllm.answer.answer import Answer
from edge_mllm.answer.timings import Usage
from edge_mllm.arrays import RgbArray
from edge_mllm.errors import BenchError
from edge_mllm.machine.sensors.energy import EnergyRecorder, Meter
from edge_mllm.machine.sensors.thermal import read_thermal, throttling
from edge_mllm.measure.bench.cases import question, sample_picture
from edge_mllm.measure.bench.result import Case, Counts, Sample
from edge_mllm.picture.image import load_rgb
from edge_mllm.session.session import Model


@dataclass(frozen=True)
class Measured:
    """A sample with what its prompt and answer were made of."""

    sample: Sample
    counts: Counts


def count_tokens(model: Model, text: str) -> int:
    """Tokens that ``text`` adds to a prompt of the model."""
    return len(model.prompt_ids(text)) - len(model.prompt_ids("0")) + 1


def measure_answer(
    model: Model, case: Case, number: int, *, meters: Sequence[Meter] = (), second: bool = False
) -> Measured:
    """Ask once and time it.

    Args:
        model: loaded and warmed up.
        case: what to ask.
        number: of the repetition; every one has pictures and a question of its own, so that no cache can help.
        meters: energy meters to read around the answer.
        second: also ask another question about the same pictures, for its time to the first token.

    Raises:
        BenchError: the answer has another length than was asked for.
    """
    files = [sample_picture(case.image_width, case.image_height, 1000 * number + i) for i in range(case.images)]
    prompt = question(case.prompt_tokens, number, lambda text: count_tokens(model, text))
    before = read_thermal()
    with EnergyRecorder(meters) as energy:
        start = time.perf_counter()
        pictures = [load_rgb(file) for file in files]
        decoded = time.perf_counter() - start
        answer = model.generate(
            prompt,
            pictures,
            max_new_tokens=case.answer_tokens,
            ignore_eos=True,
            prompt_lookup=case.prompt_lookup,
            reduction=case.reduction,
        )
        whole = time.perf_counter() - start
    after = read_thermal()
    _check_length(answer.usage, case)
    times = answer.timings
    sample = Sample(
        stages={
            "image_decode": decoded,
            "tiling": times.preprocess_s,
            "vision": times.vision_s,
            "prefill": times.prefill_s,
            "decode": times.decode_s,
        },
        end_to_end=whole,
        ttft=decoded + times.ttft_s,
        second_ttft=_second_question(model, case, number, pictures) if second else None,
        prefill_tps=times.prefill_tps,
        decode_tps=times.decode_tps,
        reused_tokens=answer.usage.reused_tokens,
        energy=energy.readings,
        celsius=after.celsius,
        throttled=throttling(before, after),
    )
    return Measured(sample, _counts(answer))


def _second_question(model: Model, case: Case, number: int, pictures: Sequence[RgbArray]) -> float:
    """Seconds to the first token of another question about the same, already decoded pictures."""
    prompt = question(case.prompt_tokens, number + 500_000, lambda text: count_tokens(model, text))
    second = model.generate(prompt, pictures, reduction=case.reduction, max_new_tokens=1, ignore_eos=True)
    return second.timings.ttft_s


def _counts(answer: Answer) -> Counts:
    return Counts(
        tiles=sum(image.tiles for image in answer.images),
        visual_tokens=answer.usage.image_tokens,
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=answer.usage.completion_tokens,
        guessed_tokens=answer.usage.guessed_tokens,
        right_tokens=answer.usage.right_tokens,
    )


def _check_length(usage: Usage, case: Case) -> None:
    if usage.completion_tokens != case.answer_tokens:
        raise BenchError(
            f"the answer has {usage.completion_tokens} tokens instead of {case.answer_tokens}; "
            "the context may be too small: lower `answer_tokens` or `image_size`"
        )
