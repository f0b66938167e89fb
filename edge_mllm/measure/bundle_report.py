"""What a bundle says of itself, in lines and rows for people: recipe, agreement with its checkpoint, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.files import OPENVINO_TOWER
from edge_mllm.bundle.spec import DECIDED
from edge_mllm.picture.tile_plan import plan_tiles

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import BundleSpec

_SAMPLE_SIZES = ((1024, 768), (640, 480), (768, 1366), (4000, 3000))
"""Width and height of a photo, a small picture, a phone screen and a camera picture."""
_SHOWN = 4
_FOUR_BIT_LIMIT = 5.0
"""A file above this many bits per weight is not called 4-bit."""


def tokens_per_picture(spec: BundleSpec) -> dict[str, dict[str, int]]:
    """Tiles and visual tokens that pictures of some sizes become."""
    counts = {}
    for width, height in _SAMPLE_SIZES:
        plan = plan_tiles(width, height, spec.image.tiler)
        counts[f"{width}x{height}"] = {"tiles": plan.count, "tokens": plan.tokens(spec.vision.tokens_per_tile)}
    return counts


def recipe_lines(spec: BundleSpec) -> Iterator[str]:
    """What was decided, and a line per part that has a recipe: true bits per weight, tensors of another type."""
    yield from (f"decided: {sentence}" for sentence in spec.recipe.get(DECIDED, {}).get("sentences", ()))
    for name, recipe in spec.recipe.items():
        if name == DECIDED:
            continue
        file = spec.parts[name].file
        bits = recipe.get("bits_per_weight")
        if bits is None:
            yield f"{file}: {_named(recipe)}, {recipe['bytes'] / 1e6:.1f} MB"
            continue
        named_four = recipe.get("nominal_bits", 8) < _FOUR_BIT_LIMIT
        note = " (above 5, so this is not a 4-bit file)" if named_four and bits > _FOUR_BIT_LIMIT else ""
        yield (
            f"{file}: {_named(recipe)}, {bits:.2f} bits per weight{note}, {recipe['bytes'] / 1e6:.1f} MB"
            f"{_calibration(recipe.get('calibration'))}"
        )
        for tensor, change in recipe.get("fallbacks", ()):
            yield f"  {tensor}: {change}"


def _named(recipe: dict[str, Any]) -> str:
    """The recipe with its exceptions."""
    exceptions = " ".join(recipe.get("overrides", ()))
    return f"{recipe['name']} with {exceptions}" if exceptions else str(recipe["name"])


def _calibration(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    pictures = "the pages that ship" if found["pictures"] == "shipped" else f"the pictures in '{found['pictures']}'"
    took = f" in {found['seconds']:.0f} s" if "seconds" in found else ""
    return f", calibrated with {pictures} ({found['positions']} positions{took})"


def verification_rows(spec: BundleSpec) -> Iterator[tuple[str, str, str]]:
    """Part, recipe and numbers of every comparison, and what they come to."""
    found = spec.verification
    pixels, ids, vision = found["pixels"], found["token_ids"], found["vision"]
    yield "pixels", "", f"largest difference {pixels['max_abs_difference']:.3g} in {pixels['pictures']} pictures"
    yield "token ids", "", f"{ids['equal']} of {ids['prompts']} prompts equal"
    for part in ("vision", OPENVINO_TOWER):
        if part in found:
            yield part.replace("_", " "), found[part]["recipe"], _embeddings(found[part])
    for numbers in found.get("npu", ()):
        yield (
            f"vision {numbers['target']}",
            numbers["precision"] + (f" x{numbers['tiles_of_a_run']}" if numbers["tiles_of_a_run"] > 1 else ""),
            f"cosine {numbers['cosine_mean']:.6f} (worst token {numbers['cosine_min']:.6f}), {numbers['tiles']} tiles "
            f"on {numbers['device']}",
        )
    for engine, numbers in found["engines"].items():
        apart, prompt = numbers.get("without_prompt_weights"), numbers.get("prompt_weights")
        recipe = numbers["recipe"] if prompt is None else f"{numbers['recipe']}, prompts {prompt}"
        yield f"{engine} decoder", recipe, _logits(numbers["decoder"])
        yield f"{engine} whole", f"{vision['recipe']} + {recipe}", _logits(numbers["whole"])
        if apart is not None:
            yield f"{engine} decoder", f"{numbers['recipe']} alone", _logits(apart["decoder"])
    yield from _decisions(found.get("processor", {}))
    yield "verdict", "", _verdict(found, random_weights=spec.source.random_weights)


def _embeddings(numbers: dict[str, Any]) -> str:
    return (
        f"cosine {numbers['cosine_mean']:.6f} (worst token {numbers['cosine_min']:.6f}), "
        f"relative error {numbers['relative_error_mean']:.2g} (worst tile {numbers['relative_error_max']:.2g}), "
        f"{numbers['tiles']} tiles"
    )


def _decisions(processor: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What was compared with, where that is not simply the directory's own processor; nothing in older bundles."""
    if "written_from" in processor:
        yield "processor", "", f"none in transformers for this directory: written from {processor['written_from']}"
    template, tokenizer = processor.get("template", {}), processor.get("tokenizer", {})
    if template.get("passed_over"):
        yield "template", "", f"{template['file']}, as transformers; not {', '.join(template['passed_over'])}"
    if template.get("content") == "text":
        yield "template", "", f"{template['file']} wants texts; it was made to take pictures"
    if tokenizer.get("declared"):
        yield "tokenizer", "", f"tokens that tokenizer.json lacks: {_some(tokenizer['declared'])}"
    if tokenizer.get("differing"):
        texts = f"{tokenizer['differing']} of {tokenizer['texts']} texts"
        yield "tokenizer", "", f"{tokenizer['taken']}; {tokenizer['class']} of this transformers differs in {texts}"
    if tokenizer.get("cuts_at"):
        yield "tokenizer", "", f"tokenizer.json cuts texts at {tokenizer['cuts_at']} tokens; prompts are left whole"
    if tokenizer.get("without_embedding"):
        yield "tokenizer", "", f"read as text, having no embedding: {_some(tokenizer['without_embedding'])}"
    if processor.get("counts_of_the_model"):
        yield "processor", "", f"sizes from config.json: {', '.join(processor['counts_of_the_model'])}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _verdict(found: dict[str, Any], *, random_weights: bool) -> str:
    if random_weights:
        return "exact parts are equal; what random weights lose in few bits means nothing and is not judged"
    return "within the limits" if found["passed"] else "beyond the limits"


def _logits(numbers: dict[str, Any]) -> str:
    greedy = numbers["greedy"]
    forced = f", {greedy['forced']} close calls forced" if greedy["forced"] else ""
    return (
        f"top-1 {numbers['top1']:.1%} of {numbers['positions']}, KL {numbers['kl_mean']:.3g} "
        f"(worst {numbers['kl_max']:.3g}), greedy {greedy['same']} of {greedy['tokens']} tokens{forced}"
    )
