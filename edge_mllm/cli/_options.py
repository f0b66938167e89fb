"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edge_mllm.limits import Limits
    from edge_mllm.request import Request
    from edge_mllm.session import Model


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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxNewTokensOption = Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is loaded and how it runs; a group of options (:mod:`edge_mllm.cli._groups`)."""

    model: ModelOption = None
    engine: EngineOption = None
    threads: ThreadsOption = None
    n_ctx: Annotated[
        int | None, typer.Option("--n-ctx", metavar="N", min=1, help="Most tokens of prompt and answer together.")
    ] = None
    kv_type: Annotated[KVTypeName | None, typer.Option(help="Precision of the decoder's cache (gguf engine).")] = None
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep visual embeddings there, so that a picture seen before is not encoded again."
        ),
    ] = None
    low_memory: Annotated[
        bool,
        typer.Option("--low-memory", help="Do not keep tower and decoder in memory together where it can be avoided."),
    ] = False
    prompt_weights: Annotated[
        bool,
        typer.Option(
            "--prompt-weights/--no-prompt-weights",
            help="Compute long prompts with a bundle's prompt weights, where it has them (onnx engine).",
        ),
    ] = True
    precision: PrecisionOption = None
    mmproj: MmprojOption = None
    vision_engine: Annotated[
        VisionEngineName | None,
        typer.Option(
            help="What runs a bundle's tower: ONNX Runtime (default), OpenVINO in float32, or in bfloat16 (for AMX)."
        ),
    ] = None

    large_pages: Annotated[
        bool | None,
        typer.Option(
            "--large-pages/--no-large-pages",
            help="Move weights into large pages in the background (Linux 6.1); by default in chats on the onnx engine.",
        ),
    ] = None

    def load(self, max_memory: int | None, *, lasting: bool = False, **changed: Any) -> Model:
        """Load the model.

        Args:
            max_memory: See :func:`edge_mllm.load`.
            lasting: Many answers will be asked for, so that what makes decoding faster is worth some time.
            changed: Its arguments that have another value than was typed.
        """
        from edge_mllm import load
        from edge_mllm.large_pages import GAINING_ENGINES

        typed: dict[str, Any] = {
            "engine": self.engine,
            "threads": self.threads,
            "n_ctx": self.n_ctx,
            "kv_type": None if self.kv_type is None else self.kv_type.value,
            "cache_dir": self.cache_dir,
            "low_memory": self.low_memory,
            "prompt_weights": self.prompt_weights,
            "precision": self.precision,
            "mmproj": self.mmproj,
            "vision_engine": (self.vision_engine or VisionEngineName.ort).value,
        }
        model = load(self.model, max_memory=max_memory, **(typed | changed))
        wanted = lasting and model.engine in GAINING_ENGINES if self.large_pages is None else self.large_pages
        if wanted:
            model.use_large_pages()
        return model


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How to answer; a group of options."""

    max_new_tokens: MaxNewTokensOption = 256
    temperature: Annotated[float, typer.Option(metavar="T", min=0.0, help="0 takes the most likely token.")] = 0.0
    top_k: Annotated[int, typer.Option(metavar="N", min=0, help="Draw among the N best; 0 is off.")] = 0
    top_p: Annotated[float, typer.Option(metavar="P", help="Draw among the best that reach P; 1 is off.")] = 1.0
    min_p: Annotated[float, typer.Option(metavar="P", help="Drop what is below P of the best; 0 is off.")] = 0.0
    repetition_penalty: Annotated[float, typer.Option(metavar="X", help="Above 1 makes repetition less likely.")] = 1.0
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Same seed, same draw.")] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End the answer before this text; may be given several times."),
    ] = None
    detail: Annotated[
        DetailName,
        typer.Option(
            help="low: one tile a picture; auto: the model's own tiling within --max-image-tokens; "
            "high: the model's own tiling or an error.",
        ),
    ] = DetailName.auto
    max_image_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most visual tokens of all pictures together."),
    ] = None
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory of the process, such as 1.5GB; pictures are tiled more coarsely for it, or refused.",
        ),
    ] = None
    max_ttft: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Most seconds to the first token, loading apart; held in the same way.",
        ),
    ] = None
    image_reduction: Annotated[
        str | None,
        typer.Option(
            "--image-reduction",
            metavar="METHOD[:RATIO]",
            help="Fewer visual tokens for the decoder: uniform, random, pool, diverse or query with the share to keep "
            "(1/2), blank or duplicates to leave out tiles. Reading text suffers first.",
        ),
    ] = None
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hold the answer to this JSON schema (needs llguidance).")
    ] = None
    prompt_lookup: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Guess up to N tokens at a time from what was said; faster where answers copy. 0 is off.",
        ),
    ] = 0

    def request(self) -> Request:
        """What was typed, checked.

        Raises:
            SettingError: A value is outside its range, or cannot be read.
            SchemaError: The schema's file cannot be read as text.
        """
        from edge_mllm import SamplingOptions
        from edge_mllm.budget import image_budget
        from edge_mllm.request import Request

        sampling = SamplingOptions(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )
        return Request(
            max_new_tokens=self.max_new_tokens,
            sampling=sampling,
            stop=tuple(self.stop or ()),
            budget=image_budget(self.detail.value, self.max_image_tokens, self.image_reduction),
            limits=_read_limits(self.max_memory, self.max_ttft),
            json_schema=_read_schema(self.json_schema),
            prompt_lookup=self.prompt_lookup,
        )


def _read_schema(path: Path | None) -> str | None:
    from edge_mllm.errors import SchemaError

    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SchemaError(f"'{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"'{path}' is not UTF-8 text") from error


def _read_limits(max_memory: str | None, max_ttft: float | None) -> Limits:
    from edge_mllm.limits import Limits, parse_bytes

    return Limits(max_memory=None if max_memory is None else parse_bytes(max_memory), max_ttft_s=max_ttft)
