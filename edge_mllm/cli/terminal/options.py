"""Options that several commands share."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from edge_mllm.cli.terminal.completion import known_models

if TYPE_CHECKING:
    from edge_mllm.answer.budget import ImageBudget
    from edge_mllm.answer.limits import Limits
    from edge_mllm.answer.request import Request
    from edge_mllm.hub.resolve import Wanted
    from edge_mllm.session.session import Model

_log = logging.getLogger(__name__)


class EngineName(StrEnum):
    """Decoder engines."""

    onnx = "onnx"
    gguf = "gguf"


class DetailName(StrEnum):
    """How finely pictures are tiled."""

    low = "low"
    auto = "auto"
    high = "high"


class LayoutName(StrEnum):
    """What a repository of the hub may hold."""

    bundle = "bundle"
    gguf = "gguf"
    onnx = "onnx"


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
        autocompletion=known_models,
        help="A bundle, a directory of published ONNX files, a GGUF file, a hub id (org/name[@revision]) or a name of "
        "'edge-mllm models --known'; without it, the starter bundle.",
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
    list[str] | None,
    typer.Option("-i", "--image", metavar="IMAGE...", help="One picture or several; - is standard input."),
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on standard error but errors.")]
LayoutOption = Annotated[
    LayoutName | None,
    typer.Option(help="What of a hub repository: bundle, gguf or onnx; default: the first of these that runs here."),
]
QuantOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Which GGUF file of a hub repository, as Q8_0; default: 4 bits.")
]
EngineOption = Annotated[EngineName | None, typer.Option(help="Decoder to use; default: the bundle's first.")]
ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Default: the fast physical cores.")]
MaxNewTokensOption = Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    """Output for programs; a group of options."""

    SECTIONS: ClassVar = {"Output": ("as_json", "json_indent")}

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, on one line.")] = False
    json_indent: Annotated[bool, typer.Option("--json-indent", help="The same on several lines, for people.")] = False

    @property
    def wanted(self) -> bool:
        """Whether standard output is to be JSON."""
        return self.as_json or self.json_indent

    def write(self, document: Any) -> None:
        """Write a JSON value to standard output, in the encoding that it has."""
        unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        text = json.dumps(document, ensure_ascii=not unicode, indent=2 if self.json_indent else None)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is loaded and how it runs; a group of options (:mod:`edge_mllm.cli.terminal.groups`)."""

    SECTIONS: ClassVar = {
        "Model": ("model", "layout", "quant", "precision", "mmproj"),
        "How it runs": (
            *("engine", "threads", "n_ctx", "kv_type", "cache_dir", "low_memory", "prompt_weights"),
            *("provider", "vision_engine", "large_pages"),
        ),
    }

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
    layout: LayoutOption = None
    quant: QuantOption = None
    precision: PrecisionOption = None
    mmproj: MmprojOption = None
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What runs a bundle's tower: auto (default; an NPU that the bundle has a tower for, else the CPU), "
            "cpu, qnn or qnn:v75 (Qualcomm's NPUs), rknn (Rockchip's), openvino, openvino-bf16.",
        ),
    ] = None
    vision_engine: Annotated[
        VisionEngineName | None,
        typer.Option(
            help="The same for CPUs alone: ONNX Runtime (ort), OpenVINO in float32, or in bfloat16; default: the "
            "fastest, measured with a machine's first picture."
        ),
    ] = None

    large_pages: Annotated[
        bool | None,
        typer.Option(
            "--large-pages/--no-large-pages",
            help="Move weights into large pages in the background (Linux 6.1); by default in chats on the onnx engine.",
        ),
    ] = None

    @property
    def wanted(self) -> Wanted:
        """What of a repository of the hub."""
        from edge_mllm.hub.resolve import Wanted

        layout = None if self.layout is None else self.layout.value
        return Wanted(layout=layout, precision=self.precision, quant=self.quant)

    def tuned(self) -> dict[str, Any]:
        """Settings that ``edge-mllm tune`` kept; nothing where there are none or options say otherwise."""
        from edge_mllm.costs.kept import applicable
        from edge_mllm.errors import ModelNotFoundError
        from edge_mllm.session.files import find_model

        try:
            path = find_model(self.model, self.wanted).path
            found = applicable(path, self.engine, self.threads, self.precision)
        except ModelNotFoundError:  # load says it better
            return {}
        if found is None:
            return {}
        typed = {"vision_engine": self.vision_engine or self.provider, "kv_type": self.kv_type}
        chosen = {name: value for name, value in found.options().items() if typed.get(name) is None}
        _log.info("settings of edge-mllm tune: %s", chosen)
        return chosen

    def arguments(self, max_memory: int | None) -> dict[str, Any]:
        """What was typed, as arguments of :func:`edge_mllm.load`."""
        return {
            "engine": self.engine,
            "threads": self.threads,
            "n_ctx": self.n_ctx,
            "kv_type": None if self.kv_type is None else self.kv_type.value,
            "cache_dir": self.cache_dir,
            "low_memory": self.low_memory,
            "prompt_weights": self.prompt_weights,
            **asdict(self.wanted),
            "mmproj": self.mmproj,
            "provider": self.provider,
            "vision_engine": None if self.vision_engine is None else self.vision_engine.value,
            "max_memory": max_memory,
        }

    def load(self, max_memory: int | None, *, lasting: bool = False, **changed: Any) -> Model:
        """Load the model.

        Args:
            max_memory: See :func:`edge_mllm.load`.
            lasting: Many answers will be asked for, so that what makes decoding faster is worth some time.
            changed: Its arguments that have another value than was typed.
        """
        from edge_mllm import load
        from edge_mllm.machine.large_pages import GAINING_ENGINES

        model = load(self.model, **(self.arguments(max_memory) | changed))
        wanted = lasting and model.engine in GAINING_ENGINES if self.large_pages is None else self.large_pages
        if wanted:
            model.use_large_pages()
        return model


@dataclass(frozen=True, kw_only=True)
class TilingOptions:
    """How finely pictures are tiled and what of them goes to the decoder; a group of options."""

    SECTIONS: ClassVar[dict[str, tuple[str, ...]]] = {"Budget": ("detail", "max_image_tokens", "image_reduction")}

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
    image_reduction: Annotated[
        str | None,
        typer.Option(
            "--image-reduction",
            metavar="METHOD[:RATIO]",
            help="Fewer visual tokens for the decoder: uniform, random, pool, diverse or query with the share to keep "
            "(1/2), blank or duplicates to leave out tiles. Reading text suffers first.",
        ),
    ] = None

    def budget(self) -> ImageBudget:
        """What was typed, checked.

        Raises:
            SettingError: A value is outside its range, or cannot be read.
        """
        from edge_mllm.answer.budget import image_budget

        return image_budget(self.detail.value, self.max_image_tokens, self.image_reduction)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(TilingOptions):
    """How to answer; a group of options."""

    SECTIONS: ClassVar = {
        "Answer": ("max_new_tokens", "stop", "json_schema", "prompt_lookup"),
        "Sampling": ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"),
        "Budget": ("detail", "max_image_tokens", "image_reduction", "max_memory", "max_ttft"),
    }

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
        from edge_mllm.answer.request import Request

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
            budget=self.budget(),
            limits=_read_limits(self.max_memory, self.max_ttft),
            json_schema=_read_schema(self.json_schema),
            prompt_lookup=self.prompt_lookup,
        )


def _read_schema(path: Path | None) -> str | None:
    from edge_mllm.errors import SchemaError

    if path is None:
        return None
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise SchemaError(f"'{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"'{path}' is not UTF-8 text") from error


def _read_limits(max_memory: str | None, max_ttft: float | None) -> Limits:
    from edge_mllm.answer.limits import Limits, parse_bytes

    return Limits(max_memory=None if max_memory is None else parse_bytes(max_memory), max_ttft_s=max_ttft)
