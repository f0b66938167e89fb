"""``edge-mllm export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import QuietOption
from edge_mllm.cli.terminal.errors import plain_errors
from edge_mllm.cli.terminal.steps import ended_politely, steps_shown

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import BundleSpec
    from edge_mllm_export import Limits


class FormatName(StrEnum):
    """Decoders to write."""

    onnx = "onnx"
    gguf = "gguf"
    both = "both"


class KVName(StrEnum):
    """Precisions of the cache that an ONNX decoder can be written with, beside float32."""

    q8 = "q8"


_NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "optimum": "optimum",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime_genai": "onnxruntime-genai",
    "safetensors": "safetensors",
    "sentencepiece": "sentencepiece",
    "gguf": "gguf",
}
"""Modules of the ``export`` extra -> distributions."""

Quant = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE",
        help="Decoder recipe; one per engine with a comma between. q4_0,int4_b32; 'auto' measures and chooses.",
    ),
]
Calibration = Annotated[
    bool | None,
    typer.Option(
        "--calibration/--no-calibration",
        help="Quantise the decoder with what it sees in pictures (pages that ship); default: yes, but for shape:NAME.",
    ),
]
Calibrate = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Your pictures (and questions.txt) to quantise the decoder with.")
]
Base = Annotated[str | None, typer.Option(metavar="DIR", help="The base of an adapter: a directory or a hub id.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(metavar="TARGET=TYPE", help="An exception, as head=q4_0, projector=fp32, 'blk.*.ffn_down=q8_0'."),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NPU[:ARCH,...]",
        help="Also the tower for NPUs: qnn-htp, or qnn-htp:v73,v75 compiled for these generations of Hexagon; "
        "rknn:rk3588,rk3576 for Rockchip's.",
    ),
]
NpuPrecision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the tower for an NPU: a16w8 (default of qnn-htp), a8w8, fp16 (default of rknn), int8 (rknn alone).",
    ),
]
TileTags = Annotated[bool, typer.Option("--tile-tags", help="A text tag before every tile, for models trained so.")]
PanAndScan = Annotated[
    bool, typer.Option("--pan-and-scan", help="Crops of long pictures beside the whole, where the model knows them.")
]
_LIMITS = "How much a quantised part may lose"


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What a quantised part may lose; a group of options (:mod:`edge_mllm.cli.options.groups`)."""

    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Keep the bundle whatever it lost.", rich_help_panel=_LIMITS)
    ] = False
    min_top1: Annotated[
        float | None, typer.Option(help="Smallest share of equal best tokens.", rich_help_panel=_LIMITS)
    ] = None
    max_kl: Annotated[
        float | None, typer.Option(help="Largest mean KL divergence in nats.", rich_help_panel=_LIMITS)
    ] = None
    min_cosine: Annotated[
        float | None, typer.Option(help="Smallest mean cosine of visual embeddings.", rich_help_panel=_LIMITS)
    ] = None

    def limits(self) -> Limits:
        """What was typed, and defaults for the rest.

        Raises:
            SettingError: A limit is outside its range.
        """
        from edge_mllm_export import Limits

        typed = {"min_top1": self.min_top1, "max_kl": self.max_kl, "min_cosine": self.min_cosine}
        return Limits(**{name: value for name, value in typed.items() if value is not None})


KV = Annotated[
    KVName | None,
    typer.Option(help="Keys and values of decoder.onnx in 8 bits; decoder.gguf: run --kv-type q8_0."),
]
PromptWeights = Annotated[
    str | None,
    typer.Option(metavar="RECIPE", help="int8: a second set of weights for faster prompts on the onnx engine."),
]
_AUTO = "With --quant auto"
MaxSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Most of a decoder and the tower, as 300MB.", rich_help_panel=_AUTO)
]
MaxLoss = Annotated[
    float | None, typer.Option(help="Most mean KL divergence in nats per token.", rich_help_panel=_AUTO)
]


@plain_errors
@grouped
def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint directory, a hub id (org/name@revision), shape:NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The bundle to make, NAME.edge.")],
    *,
    format: Annotated[FormatName, typer.Option("--format", help="Decoders to write.")] = FormatName.both,
    quant: Quant = None,
    kv: KV = None,
    prompt_weights: PromptWeights = None,
    max_size: MaxSize = None,
    max_loss: MaxLoss = None,
    vision: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Vision tower: fp32, fp16, int8 (default), int8_static, int4.")
    ] = None,
    target: Target = None,
    npu_precision: NpuPrecision = None,
    override: Overrides = None,
    calibrate: Calibrate = None,
    calibration: Calibration = None,
    base: Base = None,
    mmproj: Annotated[bool, typer.Option("--mmproj", help="Also write mmproj.gguf for llama.cpp.")] = False,
    tile_tags: TileTags = False,
    pan_and_scan: PanAndScan = False,
    verify: Annotated[bool, typer.Option(help="Compare the bundle with its checkpoint.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    losing: LossOptions,
    quiet: QuietOption = False,
) -> None:
    """Turn a checkpoint into a bundle and compare the two."""
    _require_extra()
    from edge_mllm.answer.limits import parse_bytes
    from edge_mllm_export import ExportOptions, export_bundle, parse_override

    options = ExportOptions(
        format=format.value,
        quant=quant,
        kv=None if kv is None else "q8",
        prompt_weights=prompt_weights,
        max_size=None if max_size is None else parse_bytes(max_size),
        max_loss=max_loss,
        vision=vision,
        target=tuple(target) if target else None,
        npu_precision=npu_precision,
        base=base,
        mmproj=mmproj,
        tile_tags=tile_tags,
        pan_and_scan=pan_and_scan,
        verify=verify,
        force=force,
        allow_loss=losing.allow_loss,
        limits=losing.limits(),
        overrides=tuple(parse_override(text) for text in override or ()),
        calibrate=calibrate,
        calibration=calibration,
    )
    with ended_politely(), steps_shown(quiet) as announce:
        spec = export_bundle(source, out, options, announce)
    if not quiet:
        _report(spec, out)


def _require_extra() -> None:
    from edge_mllm.errors import ExtraMissingError

    for module, distribution in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise ExtraMissingError("export", distribution)


def _report(spec: BundleSpec, out: Path) -> None:
    from edge_mllm.cli.terminal.console import wide_console
    from edge_mllm.cli.terminal.tables import show_text, show_verification
    from edge_mllm.measure.bundle_report import recipe_lines, verification_rows

    console = wide_console(stderr=True)
    show_text(console, "\n".join(recipe_lines(spec)))
    if spec.verification:
        show_verification(console, str(spec.verification["reference"]), list(verification_rows(spec)))
    show_text(console, f"{out}: {spec.bytes / 1e6:.1f} MB, engines {', '.join(spec.engines)}")
