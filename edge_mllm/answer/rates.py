"""How fast this machine is with one model: from this process's answers, else from what was measured here before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge_mllm.answer.answer import Answer
from edge_mllm.bundle.spec import BundleSpec, Engine
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.tower.engines import TowerEngine

_LEAST_PREFILL = 32
"""Prompt tokens from which a speed is worth remembering."""
PROCESS, TUNE, DEVICE, PROBE = "this process", "edge-mllm tune", "device profile", "probe"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds; None where they are not known."""

    source: str
    tile_s: float | None = None
    """Of the tower for one tile, or for one visual token where it takes whole pictures."""
    token_s: float | None = None
    """Of prefill for one token."""
    cut_s: float = 0.0
    """Of decoding and cutting the pictures, for one tile or visual token."""


class MeasuredRates:
    """What the latest answers of a process showed, over what was known before.

    Args:
        whole: The tower takes whole pictures, so that its work is counted in visual tokens.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self.before: Rates | None = None
        self._tile_s: float | None = None
        self._token_s: float | None = None
        self._cut_s = 0.0

    def work(self, tiles: int, tokens: int) -> int:
        """A picture's work for the tower, in what rates are told for."""
        return tokens if self._whole else tiles

    def learn(self, answer: Answer) -> None:
        """Take over what an answer shows."""
        fresh = [image for image in answer.images if image.source == "tower"]
        work = sum(self.work(image.tiles, image.tokens) for image in fresh)
        if self._whole and answer.reduction is not None:
            work = 0  # the answer's visual tokens are fewer than the tower's
        if work and answer.timings.vision_s > 0 and all(image.source != "prepared" for image in answer.images):
            self._tile_s = answer.timings.vision_s / work
            self._cut_s = answer.timings.preprocess_s / work
        if answer.usage.prompt_tokens - answer.usage.reused_tokens >= _LEAST_PREFILL:
            self._token_s = 1 / answer.timings.prefill_tps

    def probed(self, *, tile_s: float | None, token_s: float | None, cut_s: float) -> None:
        """Take over what was measured for the purpose."""
        self.before = Rates(source=PROBE, tile_s=tile_s, token_s=token_s, cut_s=cut_s)

    @property
    def now(self) -> Rates:
        """The best that is known."""
        found = self.before or Rates(source="")
        if self._tile_s is not None:
            found = replace(found, source=PROCESS, tile_s=self._tile_s, cut_s=self._cut_s)
        if self._token_s is not None:
            found = replace(found, source=PROCESS, token_s=self._token_s)
        return found


def kept_rates(
    path: Path, spec: BundleSpec | None, engines: tuple[Engine, TowerEngine], settings: DecoderSettings, prompt: int
) -> Rates | None:
    """What ``edge-mllm tune`` or a device profile measured on this machine says of a bundle; None where neither does.

    Args:
        path: The bundle.
        spec: Of the bundle; None for other layouts, which have no kept rates.
        engines: Of decoder and tower, which must be those of the measurement.
        settings: Threads, chunk and cache must be those of the measurement.
        prompt: Tokens of the prompt that a profile's rate is told for.
    """
    from edge_mllm.costs.kept import find

    if spec is None or spec.vision.patches is not None or not (path / "bundle.json").is_file():
        return None
    tuned = find(path)
    used = (*engines, settings.threads, settings.chunk, settings.kv_type)
    if tuned is not None and tuned.measured == used and tuned.tile_s and tuned.token_s:
        return Rates(source=TUNE, tile_s=tuned.tile_s, token_s=tuned.token_s)
    return _profile_rates(spec, engines[0], settings, prompt) if engines[1] == "ort" else None


def _profile_rates(spec: BundleSpec, engine: Engine, settings: DecoderSettings, tokens: int) -> Rates | None:
    from edge_mllm.costs.devices import measured_here
    from edge_mllm.costs.estimate import prompt_work, tower_work
    from edge_mllm.costs.facts import prefill_recipe, prompt_recipe, read_shape
    from edge_mllm.costs.roofline import Work

    profile, shape = measured_here(), read_shape(spec.recipe.get("vision", {}).get("shape"))
    part = spec.parts.get(f"decoder_{engine}")
    if profile is None or shape is None or part is None or profile.threads != settings.threads:
        return None
    tower = profile.lines.get(f"tower/{spec.parts['vision'].precision}")
    prompt = prompt_recipe(spec) if engine == "onnx" and settings.prompt_weights != "off" else ""
    prefill = profile.lines.get(f"prefill/{engine}/{prefill_recipe(part.precision, prompt)}")
    if tower is None or prefill is None:
        return None
    picture = profile.lines.get("picture")
    pixels = 2 * spec.vision.tile_width * spec.vision.tile_height
    return Rates(
        source=DEVICE,
        tile_s=tower.seconds(tower_work(shape.tower)),
        token_s=prefill.seconds(prompt_work(shape.decoder, tokens)) / tokens,
        cut_s=0.0 if picture is None else picture.seconds(Work(pixels, 1)),
    )
