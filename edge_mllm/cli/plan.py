"""``edge-mllm plan``: what a model will cost, before it is downloaded, exported or run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_mllm.cli import _options as options
from edge_mllm.cli._errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.plan.costs import Ask, Cost
    from edge_mllm.plan.facts import ModelFacts
    from edge_mllm.plan.roofline import DeviceProfile

_SIZES = ((640, 480), (1024, 768), (1920, 1080), (1080, 2400))
"""Pictures whose visual tokens are listed."""


@plain_errors
def plan(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A bundle, a checkpoint directory, a hub id or shape:NAME; without it, the starter bundle.",
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
    as_json: options.JsonOption = False,
) -> None:
    """Tell bytes on disk, memory, visual tokens and expected speed of a model in every recipe.

    Of a hub id only the configuration files are fetched. Bytes are exact; times come from a roofline.
    """
    from edge_mllm.bench.cases import parse_size
    from edge_mllm.limits import parse_bytes
    from edge_mllm.plan.costs import Ask, costs
    from edge_mllm.plan.devices import named_device, this_machine

    width, height = parse_size(image_size)
    limit = None if memory is None else parse_bytes(memory)
    facts = _facts(source)
    profile = named_device(device) if device else this_machine()
    ask = Ask(width=width, height=height, answer_tokens=answer_tokens, memory_limit=limit)
    found = costs(facts, ask, profile)
    if as_json:
        sys.stdout.write(json.dumps(_report(facts, profile, ask, found), indent=2) + "\n")
    else:
        _show(facts, profile, ask, found)


def _facts(source: str | None) -> ModelFacts:
    from edge_mllm.bundle_files import open_bundle
    from edge_mllm.errors import ExtraMissingError
    from edge_mllm.plan.facts import facts_of_bundle
    from edge_mllm.session import starter_bundle

    path = starter_bundle() if source is None else Path(source).expanduser()
    if (path / "bundle.json").is_file():
        return facts_of_bundle(open_bundle(path, check_hashes=False))
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise ExtraMissingError("export", module)
    from edge_mllm_export.source_facts import facts_of_source

    return facts_of_source(str(source))


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


def _show(facts: ModelFacts, device: DeviceProfile, ask: Ask, found: list[Cost]) -> None:
    from rich.table import Table

    from edge_mllm.cli._console import wide_console

    console = wide_console()
    console.print(f"{facts.name}, context {facts.context_length}")
    kind = "" if device.estimated else "measured: "
    console.print(f"{device.processor}, {device.threads} threads; {kind}{device.source}")
    pictures = (facts.picture(*size) for size in _sizes(ask))
    console.print("visual tokens: " + ", ".join(f"{p.width}x{p.height} {p.tokens} ({p.tiles} tiles)" for p in pictures))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("engine", "decoder", "tower"):
        table.add_column(name)
    for name in ("decoder MB", "tower MB", "disk MB", "memory MB", "first token s", "of it picture", "tokens/s", ""):
        table.add_column(name, justify="right")
    shown = [cost for cost in found if cost.decoder.default or cost.tower.default]
    for cost in shown:
        table.add_row(*_row(cost))
    console.print(table)
    if len(shown) < len(found):
        console.print(f"* what export writes by itself; --json has all {len(found)} combinations")
    if any(cost.decoder.prompt for cost in shown):
        console.print("+NAME is a decoder written with --prompt-weights NAME")
    for note in facts.notes:
        console.print(note)


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
