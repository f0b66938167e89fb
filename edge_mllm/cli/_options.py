"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_mllm.decoders.settings import KVType
    from edge_mllm.limits import Limits


class EngineName(StrEnum):
    """Decoder engines."""

    onnx = "onnx"
    gguf = "gguf"


class DetailName(StrEnum):
    """How finely pictures are tiled."""

    low = "low"
    auto = "auto"
    high = "high"


class VisionEngineName(StrEnum):
    """What runs the vision tower."""

    ort = "ort"
    openvino = "openvino"
    openvino_bf16 = "openvino-bf16"


class KVTypeName(StrEnum):
    """Precision of the decoder's cache."""

    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"


_SAMPLING = "Sampling"
_LIMITS = "Limits"

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        help="A bundle, a directory of published ONNX files or a GGUF file; without it, the starter bundle.",
    ),
]
MmprojOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The vision tower of a GGUF file (mmproj.gguf).")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Files of a published directory, as q4 or vision_encoder=fp16,decoder_model_merged=q4; "
        "default: tower whole, decoder in 4 bits.",
    ),
]
ImagesOption = Annotated[
    list[Path] | None, typer.Option("-i", "--image", metavar="IMAGE", help="A picture; may be given several times.")
]
EngineOption = Annotated[EngineName | None, typer.Option(help="Decoder to use; default: the bundle's first.")]
ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Default: the fast physical cores.")]
ContextOption = Annotated[
    int | None, typer.Option("--n-ctx", metavar="N", min=1, help="Most tokens of prompt and answer together.")
]
KVTypeOption = Annotated[KVTypeName | None, typer.Option(help="Precision of the decoder's cache (gguf engine).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxNewTokensOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Most tokens of the answer.", rich_help_panel=_LIMITS)
]
DetailOption = Annotated[
    DetailName,
    typer.Option(
        help="low: one tile a picture; auto: the model's own tiling within --max-image-tokens; "
        "high: the model's own tiling or an error.",
        rich_help_panel=_LIMITS,
    ),
]
MaxImageTokensOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Most visual tokens of all pictures together.", rich_help_panel=_LIMITS),
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Most memory of the process, such as 1.5GB; pictures are tiled more coarsely for it, or refused.",
        rich_help_panel=_LIMITS,
    ),
]
MaxTtftOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Most seconds to the first token, loading apart; held in the same way.",
        rich_help_panel=_LIMITS,
    ),
]
ReductionOption = Annotated[
    str | None,
    typer.Option(
        "--image-reduction",
        metavar="METHOD[:RATIO]",
        help="Fewer visual tokens for the decoder: uniform, random, pool, diverse or query with the share to keep "
        "(1/2), blank or duplicates to leave out tiles. Reading text suffers first.",
        rich_help_panel=_LIMITS,
    ),
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Keep visual embeddings there, so that a picture seen before is not encoded again."
    ),
]
JsonSchemaOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Hold the answer to this JSON schema (needs llguidance)."),
]
PromptLookupOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Guess up to N tokens at a time from what was said; faster where answers copy. 0 is off.",
    ),
]
VisionEngineOption = Annotated[
    VisionEngineName,
    typer.Option(help="What runs a bundle's tower: ONNX Runtime, OpenVINO in float32, or in bfloat16 (for AMX)."),
]
LowMemoryOption = Annotated[
    bool,
    typer.Option("--low-memory", help="Do not keep tower and decoder in memory together where it can be avoided."),
]
ChatFileOption = Annotated[
    Path | None,
    typer.Option(
        "--chat-file",
        metavar="FILE",
        help="Go on with the conversation in FILE where there is one, and keep it there at the end.",
    ),
]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]
StopOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End the answer before this text; may be given several times."),
]
TemperatureOption = Annotated[
    float, typer.Option(metavar="T", min=0.0, help="0 takes the most likely token.", rich_help_panel=_SAMPLING)
]
TopKOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Draw among the N best; 0 is off.", rich_help_panel=_SAMPLING)
]
TopPOption = Annotated[
    float, typer.Option(metavar="P", help="Draw among the best that reach P; 1 is off.", rich_help_panel=_SAMPLING)
]
MinPOption = Annotated[
    float, typer.Option(metavar="P", help="Drop what is below P of the best; 0 is off.", rich_help_panel=_SAMPLING)
]
RepetitionOption = Annotated[
    float, typer.Option(metavar="X", help="Above 1 makes repetition less likely.", rich_help_panel=_SAMPLING)
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Same seed, same draw.", rich_help_panel=_SAMPLING)
]


def read_schema(path: Path | None) -> str | None:
    """Text of a schema file.

    Raises:
        SchemaError: The file cannot be read as text.
    """
    from edge_mllm.errors import SchemaError

    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SchemaError(f"'{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"'{path}' is not UTF-8 text") from error


def read_limits(max_memory: str | None, max_ttft: float | None) -> Limits:
    """Limits as they were typed.

    Raises:
        SettingError: One cannot be read, or is not above zero.
    """
    from edge_mllm.limits import Limits, parse_bytes

    return Limits(max_memory=None if max_memory is None else parse_bytes(max_memory), max_ttft_s=max_ttft)


def kv_type_of(option: KVTypeName | None) -> KVType | None:
    """The package's name of a cache precision."""
    return None if option is None else option.value
