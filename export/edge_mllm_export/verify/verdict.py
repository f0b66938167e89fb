"""Whether the numbers of a verification are good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import InputsError, LossError

if TYPE_CHECKING:
    from edge_mllm_export.options import ExportOptions, Limits
    from edge_mllm_quant.recipes.recipe import Component, Recipe

PIXEL_TOLERANCE = 1e-6
EXACT_COSINE = 0.99999
"""Every visual token of an unquantised tower."""
EXACT_KL = 1e-5
"""Nats, every position of an unquantised decoder."""


_TOWERS: dict[Component, str] = {"vision": "the vision tower", "vision_openvino": "the vision tower for OpenVINO"}


@dataclass(frozen=True)
class _Check:
    part: str
    measure: str
    found: float
    limit: float
    at_least: bool

    @property
    def passed(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def judge(
    found: dict[str, Any], recipes: Mapping[Component, Recipe], options: ExportOptions, *, random_weights: bool
) -> dict[str, Any]:
    """Add the verdict to the numbers.

    Args:
        found: The numbers, by part.
        recipes: Which parts are unquantised.
        options: The limits for quantised parts, and whether they count.
        random_weights: Answers of random weights mean nothing: their loss is reported, never judged.

    Raises:
        InputsError: Pixels or token ids are not those of the checkpoint's own processor.
        LossError: The first check that fails.
    """
    _check_inputs(found)
    exact = list(_exact(found, recipes))
    lossy = list(_lossy(found, options.limits))
    judged = exact if options.allow_loss or random_weights else exact + lossy
    for check in judged:
        if not check.passed:
            raise LossError(check.part, check.measure, check.found, check.limit)
    return {**found, "limits": asdict(options.limits), "passed": all(check.passed for check in exact + lossy)}


def _check_inputs(found: Mapping[str, Any]) -> None:
    pixels, ids = found["pixels"], found["token_ids"]
    if pixels["max_abs_difference"] > PIXEL_TOLERANCE:
        first = pixels.get("first_difference", {})
        file, prefix = pixels.get("place", ("preprocessor_config.json", ""))
        fields = " or ".join(prefix + field for field in first.get("fields", ()))
        measure = f"they differ by up to {pixels['max_abs_difference']:.6g}{_for(first)}"
        raise InputsError("pixels", measure, f"'{file}', {fields or 'an unknown field'}")
    if ids["equal"] < ids["prompts"]:
        first = ids.get("first_difference", {})
        measure = f"{ids['prompts'] - ids['equal']} of {ids['prompts']} prompts differ{_for(first)}"
        place = f" from token {first['place']} on" if "place" in first else ""
        raise InputsError("token ids", measure + place, "the chat template and the tokenizer's files")


def _for(first: Mapping[str, Any]) -> str:
    """The prompt of a first difference."""
    if not first:
        return ""
    pictures = " and ".join(f"a picture of {width}x{height}" for width, height in first["pictures"])
    return f", first for {first['prompt']!r}" + (f" with {pictures}" if pictures else "")


def _exact(found: Mapping[str, Any], recipes: Mapping[Component, Recipe]) -> Iterator[_Check]:
    for tower, title in _TOWERS.items():
        if tower in recipes and recipes[tower].lossless:
            yield _Check(title, "the worst cosine", found[tower]["cosine_min"], EXACT_COSINE, True)
    for engine, numbers in found["engines"].items():
        if recipes[engine].lossless:
            part = f"the unquantised {engine} decoder"
            yield _Check(part, "the worst KL divergence", numbers["decoder"]["kl_max"], EXACT_KL, False)
            yield _Check(part, "top-1 agreement", numbers["decoder"]["top1"], 1.0, True)


def _lossy(found: Mapping[str, Any], limits: Limits) -> Iterator[_Check]:
    for part, title in _TOWERS.items():
        if part in found:
            yield _Check(title, "the mean cosine", found[part]["cosine_mean"], limits.min_cosine, True)
    for numbers in found.get("npu", ()):
        title = f"the tower for {numbers['target']} in {numbers['precision']}"
        yield _Check(title, "the mean cosine", numbers["cosine_mean"], limits.min_cosine, True)
    for engine, numbers in found["engines"].items():
        for name, title in (("decoder", f"the {engine} decoder"), ("whole", f"the whole with {engine}")):
            yield _Check(title, "top-1 agreement", numbers[name]["top1"], limits.min_top1, True)
            yield _Check(title, "the mean KL divergence", numbers[name]["kl_mean"], limits.max_kl, False)
