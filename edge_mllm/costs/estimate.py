"""Bytes, tokens and seconds of one question, for every combination of recipes a model can be stored in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from edge_mllm.bundle.spec import Engine
from edge_mllm.costs.facts import ModelFacts, PartSize, PicturePlan
from edge_mllm.costs.roofline import DeviceProfile, Work
from edge_mllm.costs.shapes import DecoderShape, ModelShape, TowerShape
from edge_mllm.hub.catalogue import Entry
from edge_mllm.picture.header import PictureHeader

PROGRAM_BYTES = 300 << 20
"""Interpreter, libraries and activations: the most the runtime is to need beside weights and cache."""
_KV_BYTES = {"gguf": 2.0, "onnx": 4.0}
"""Of one value in the cache: llama.cpp keeps half precision, the ONNX graphs single."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The question costs are told for."""

    width: int = 1024
    height: int = 768
    text_tokens: int = 48
    """Template, question and what stands between tiles."""
    answer_tokens: int = 64
    memory_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One way to store and run the model. Seconds are None where the device's speed at this recipe is not known."""

    engine: Engine
    decoder: PartSize
    tower: PartSize
    disk_bytes: int
    memory_bytes: int
    """Weights, keys and values of prompt and answer, the decoded picture, and :data:`PROGRAM_BYTES`."""
    fits: bool | None
    """Whether that is within the limit; None without one."""
    vision_s: float | None
    prefill_s: float | None
    ttft_s: float | None
    decode_tps: float | None


def costs(facts: ModelFacts, ask: Ask, device: DeviceProfile | None) -> list[Cost]:
    """Every decoder recipe with every tower recipe; defaults come first."""
    picture = facts.picture(ask.width, ask.height)
    found = [
        _cost(facts, ask, device, picture, engine, decoder, tower)
        for engine, decoder in _decoders(facts)
        for tower in facts.towers
    ]
    return sorted(found, key=lambda cost: not (cost.decoder.default and cost.tower.default))


def prompt_tokens(facts: ModelFacts, ask: Ask) -> int:
    """Tokens of the whole prompt."""
    return facts.picture(ask.width, ask.height).tokens + ask.text_tokens


def picture_tower(facts: ModelFacts, tower: TowerShape, picture: PicturePlan) -> Work:
    """Operations and attention scores of the tower over one picture, counted in its runs.

    A tower that takes any size runs over all patches of a picture, or of each of its tiles, all of about one area.
    """
    patches = facts.vision.patches
    if patches is None or patches.pooled:
        return tower_work(tower, runs=picture.tiles)
    tokens = -(-picture.tokens // picture.tiles)
    return tower_work(dataclasses.replace(tower, patches=tokens * patches.merge**2, tokens=tokens), runs=picture.tiles)


def tower_work(tower: TowerShape, runs: int = 1) -> Work:
    """Operations and attention scores of so many runs of a tower."""
    return Work(tower.linear_ops * runs, runs, tower.attention_scores * runs)


def prompt_work(decoder: DecoderShape, tokens: int) -> Work:
    """Operations and attention scores of a prompt, counted in values of the residual stream."""
    return Work(decoder.linear_ops(tokens), decoder.residual_values(tokens), decoder.attention_scores(tokens))


def token_work(decoder: DecoderShape, weight_bytes: int, past: float) -> Work:
    """Bytes of weights, attention scores and rows of the cache of one token of an answer.

    Args:
        decoder: Its shape.
        weight_bytes: Read for every token.
        past: Tokens in the cache.
    """
    attention = decoder.attention_scores(1, past) + decoder.cache_rows(past)
    return Work(weight_bytes, decoder.residual_values(1), attention)


def _decoders(facts: ModelFacts) -> Iterator[tuple[Engine, PartSize]]:
    for engine, sizes in facts.decoders.items():
        for size in sizes:
            yield engine, size


def _cost(
    facts: ModelFacts,
    ask: Ask,
    device: DeviceProfile | None,
    picture: PicturePlan,
    engine: Engine,
    decoder: PartSize,
    tower: PartSize,
) -> Cost:
    prompt = picture.tokens + ask.text_tokens
    shape = facts.shape.decoder if facts.shape else None
    cache = shape.kv_bytes(prompt + ask.answer_tokens, _KV_BYTES[engine]) + shape.state_bytes if shape else 0
    pixels = PictureHeader.plain(picture.width, picture.height).decoding_bytes
    memory = decoder.bytes + tower.bytes + int(cache) + pixels + PROGRAM_BYTES
    times: tuple[float | None, ...] = (None, None, None, None)
    if facts.shape is not None and device is not None:
        times = _times(facts, facts.shape, ask, device, (engine, decoder, tower))
    vision, prefill, ttft, speed = times
    return Cost(
        engine=engine,
        decoder=decoder,
        tower=tower,
        disk_bytes=decoder.bytes + tower.bytes,
        memory_bytes=memory,
        fits=None if ask.memory_limit is None else memory <= ask.memory_limit,
        vision_s=vision,
        prefill_s=prefill,
        ttft_s=ttft,
        decode_tps=speed,
    )


def stage_works(
    facts: ModelFacts, shape: ModelShape, ask: Ask, parts: tuple[Engine, PartSize, PartSize]
) -> dict[str, tuple[str, Work]]:
    """Line of a device profile and work of each stage: ``picture``, ``tower``, ``prefill``, ``token`` (of the answer).

    Args:
        facts: Of the model.
        shape: Of the model.
        ask: The question.
        parts: Engine, decoder and tower.
    """
    engine, decoder, tower = parts
    picture = facts.picture(ask.width, ask.height)
    prompt = picture.tokens + ask.text_tokens
    cut_pixels = ask.width * ask.height + picture.tiles * facts.vision.tile_width * facts.vision.tile_height
    token = token_work(shape.decoder, decoder.token_bytes, prompt + ask.answer_tokens / 2)
    return {
        "picture": ("picture", Work(cut_pixels, 1)),
        "tower": (f"tower/{tower.recipe}", picture_tower(facts, shape.tower, picture)),
        "prefill": (f"prefill/{engine}/{decoder.prefill}", prompt_work(shape.decoder, prompt)),
        "token": (f"decode/{engine}/{decoder.recipe}", token),
    }


def known_speed(entry: Entry, device: DeviceProfile) -> tuple[float | None, float | None]:
    """Seconds to the first token and tokens per second of a model of the catalogue, for its picture of 640x480.

    Each is None where the device's speed at the recipe is not known.
    """
    works = {stage: (work.line, Work(work.amount, work.count, work.attention)) for stage, work in entry.works.items()}
    _, _, first_token, speed = _speeds(works, device)
    return first_token, speed


def _times(
    facts: ModelFacts,
    shape: ModelShape,
    ask: Ask,
    device: DeviceProfile,
    parts: tuple[Engine, PartSize, PartSize],
) -> tuple[float | None, ...]:
    """Seconds of the picture with its tower, of prefill, to the first token; tokens per second after it."""
    return _speeds(stage_works(facts, shape, ask, parts), device)


def _speeds(works: dict[str, tuple[str, Work]], device: DeviceProfile) -> tuple[float | None, ...]:
    reading, tower, prefill, token = (_seconds(device, *works[name]) for name in works)
    if reading is None or tower is None:
        return None, prefill, None, None if token is None else 1 / token
    vision = reading + tower
    return vision, prefill, None if prefill is None else vision + prefill, None if token is None else 1 / token


def _seconds(device: DeviceProfile, name: str, work: Work) -> float | None:
    line = device.lines.get(name)
    return None if line is None else line.seconds(work)
