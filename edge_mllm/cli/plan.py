"""``edge-mllm plan``: what a model will cost, before it is downloaded, exported or run."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.costs.estimate import Ask, Cost
    from edge_mllm.costs.facts import ModelFacts
    from edge_mllm.costs.roofline import DeviceProfile

_SIZES = ((640, 480), (1024, 768), (1920, 1080), (1080, 2400))
"""Pictures whose visual tokens are listed."""
_HEADER = (
    "engine",
    "decoder",
    "tower",
    "decoder MB",
    "tower MB",
    "disk MB",
    "memory MB",
    "first token s",
    "of it picture",
    "tokens/s",
    "",
)


@plain_errors
@grouped
def plan(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A bundle, a checkpoint directory, a hub id, a name of 'edge-mllm models --known' or shape:NAME; "
            "without it, the starter bundle.",
        ),
    ] = None,
    *,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A known device or a profile file; without it, this machine."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Say which ways of storing it fit, such as 2GB.")
    ] = None,
    image_size: Annotated[str, typer.Option(metavar="WxH", help="The picture that times are told for.")] = "1024x768",
    answer_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Length of the answer.")] = 64,
    output: JsonOptions,
) -> None:
    """Tell bytes on disk, memory, visual tokens and expected speed of a model in every recipe.

    Of a hub id only the configuration files are fetched. Bytes are exact; times come from a roofline. Exits 1 when
    nothing fits into --memory, or into the device's memory.
    """
    from edge_mllm.answer.limits import parse_bytes
    from edge_mllm.costs.advice import advise
    from edge_mllm.costs.devices import named_device, this_machine
    from edge_mllm.costs.estimate import Ask, costs
    from edge_mllm.measure.bench.cases import parse_size

    width, height = parse_size(image_size)
    limit = None if memory is None else parse_bytes(memory)
    source = _named(source)
    _check_source(source)
    profile = named_device(device) if device else None
    facts = _facts(source)
    profile = profile or this_machine()
    ask = Ask(width=width, height=height, answer_tokens=answer_tokens, memory_limit=limit)
    found = costs(facts, ask, profile)
    advice = advise(found, limit or profile.memory_bytes, given=limit is not None, smaller=partial(_smaller, ask))
    if output.wanted:
        output.write(_report(facts, profile, ask, found) | {"advice": advice.text, "fits": advice.fits})
    else:
        _show(facts, profile, ask, found, advice.text)
    if not advice.fits:
        raise typer.Exit(1)


def _named(source: str | None) -> str | None:
    """A short name of the catalogue is planned from its shape, without the net; other sources stay what they are."""
    from edge_mllm.hub.names import read_name

    name = None if source is None or source.startswith("shape:") else read_name(source)
    if name is None:
        return source
    return f"shape:{name.entry.name}" if name.entry else source and source.removeprefix("hf:")


def _check_source(source: str | None) -> None:
    """Say at once that a source leads nowhere, before libraries are imported that take seconds.

    Raises:
        ModelNotFoundError: It is no path, and has not the form of a hub id or a shape.
    """
    from edge_mllm.errors import ModelNotFoundError
    from edge_mllm.hub.names import split_id

    if source is None or source.startswith("shape:") or Path(source).expanduser().is_dir():
        return
    if Path(source).expanduser().exists():
        raise ModelNotFoundError(source, "it is a file; plan takes a bundle, a checkpoint directory or a hub id")
    if split_id(source) is None:
        raise ModelNotFoundError(source, "no such directory, and no hub id (org/name) or shape (shape:NAME)")


def _facts(source: str | None) -> ModelFacts:
    from edge_mllm.costs.facts import facts_of_bundle
    from edge_mllm.session.files import open_bundle, starter_bundle

    path = starter_bundle() if source is None else Path(source).expanduser()
    if (path / "bundle.json").is_file():
        return facts_of_bundle(open_bundle(path, check_hashes=False))
    _require_extra()
    from edge_mllm_export.source.facts import facts_of_source

    return facts_of_source(str(source))


def _require_extra() -> None:
    from edge_mllm.errors import ExtraMissingError

    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise ExtraMissingError("export", module)


def _smaller(ask: Ask, limit: int) -> tuple[str, int] | None:
    """The largest published model that fits, and the bytes it needs; None where none does or export is not there."""
    from edge_mllm.errors import ExtraMissingError

    try:
        _require_extra()
    except ExtraMissingError:
        return None
    from edge_mllm_export.source.facts import largest_shape_within

    return largest_shape_within(limit, ask)


def _report(facts: ModelFacts, device: DeviceProfile, ask: Ask, found: list[Cost]) -> dict[str, Any]:
    return {
        "model": facts.name,
        "context_length": facts.context_length,
        "device": {
            "processor": device.processor,
            "threads": device.threads,
            "memory_bytes": device.memory_bytes,
            "source": device.source,
            "estimated": device.estimated,
        },
        "question": dataclasses.asdict(ask),
        "pictures": [dataclasses.asdict(facts.picture(*size)) for size in _sizes(ask)],
        "costs": [dataclasses.asdict(cost) for cost in found],
        "notes": list(facts.notes),
    }


def _sizes(ask: Ask) -> list[tuple[int, int]]:
    return list(dict.fromkeys([(ask.width, ask.height), *_SIZES]))


def _show(facts: ModelFacts, device: DeviceProfile, ask: Ask, found: list[Cost], advice: str) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_table, show_text

    console = wide_console()
    show_text(console, advice)
    show_text(console, f"{facts.name}, context {facts.context_length}")
    kind = "" if device.estimated else "measured: "
    show_text(console, f"{device.processor}, {device.threads} threads; {kind}{device.source}")
    pictures = (facts.picture(*size) for size in _sizes(ask))
    sizes = ", ".join(f"{p.width}x{p.height} {p.tokens} ({p.tiles} tiles)" for p in pictures)
    show_text(console, f"visual tokens: {sizes}")
    shown = [cost for cost in found if cost.decoder.default or cost.tower.default]
    show_table(console, _HEADER, [_row(cost) for cost in shown], right=_HEADER[3:])
    if len(shown) < len(found):
        show_text(console, f"* what export writes by itself; --json has all {len(found)} combinations")
    if any(cost.decoder.prompt for cost in shown):
        show_text(console, "+NAME is a decoder written with --prompt-weights NAME")
    for note in facts.notes:
        show_text(console, note)


def _row(cost: Cost) -> tuple[str, ...]:
    fits = {None: "", True: "fits", False: "too large"}[cost.fits]
    default = " *" if cost.decoder.default and cost.tower.default else ""
    return (
        cost.engine + default,
        cost.decoder.prefill,
        cost.tower.recipe,
        *(f"{size / 1e6:.1f}" for size in (cost.decoder.bytes, cost.tower.bytes, cost.disk_bytes, cost.memory_bytes)),
        _number(cost.ttft_s, "{:.2f}"),
        _number(cost.vision_s, "{:.2f}"),
        _number(cost.decode_tps, "{:.1f}"),
        fits,
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
