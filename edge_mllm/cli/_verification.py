"""What an export wrote and how it compares with its checkpoint, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from edge_mllm.bundle import BundleSpec

_FOUR_BIT_LIMIT = 5.0
"""A file above this many bits per weight is not called 4-bit."""


def recipe_lines(spec: BundleSpec) -> Iterator[str]:
    """One line per part that has a recipe: true bits per weight, and tensors that fell back to another type."""
    for name, recipe in spec.recipe.items():
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


def verification_table(found: dict[str, Any]) -> Table:
    """The comparison with the checkpoint as a table."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title=f"\nagainst {found['reference']}")
    for column in ("part", "recipe", "agreement"):
        table.add_column(column)
    for row in verification_rows(found):
        table.add_row(*row)
    return table


def verification_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Part, recipe and numbers of every comparison."""
    pixels, ids, vision = found["pixels"], found["token_ids"], found["vision"]
    yield "pixels", "", f"largest difference {pixels['max_abs_difference']:.3g} in {pixels['pictures']} pictures"
    yield "token ids", "", f"{ids['equal']} of {ids['prompts']} prompts equal"
    yield (
        "vision",
        vision["recipe"],
        f"cosine {vision['cosine_mean']:.6f} (worst token {vision['cosine_min']:.6f}), "
        f"relative error {vision['relative_error_mean']:.2g} (worst tile {vision['relative_error_max']:.2g}), "
        f"{vision['tiles']} tiles",
    )
    for engine, numbers in found["engines"].items():
        apart, prompt = numbers.get("without_prompt_weights"), numbers.get("prompt_weights")
        recipe = numbers["recipe"] if prompt is None else f"{numbers['recipe']}, prompts {prompt}"
        yield f"{engine} decoder", recipe, _logits(numbers["decoder"])
        yield f"{engine} whole", f"{vision['recipe']} + {recipe}", _logits(numbers["whole"])
        if apart is not None:
            yield f"{engine} decoder", f"{numbers['recipe']} alone", _logits(apart["decoder"])
    yield "verdict", "", "within the limits" if found["passed"] else "beyond the limits"


def _logits(numbers: dict[str, Any]) -> str:
    greedy = numbers["greedy"]
    forced = f", {greedy['forced']} close calls forced" if greedy["forced"] else ""
    return (
        f"top-1 {numbers['top1']:.1%} of {numbers['positions']}, KL {numbers['kl_mean']:.3g} "
        f"(worst {numbers['kl_max']:.3g}), greedy {greedy['same']} of {greedy['tokens']} tokens{forced}"
    )
