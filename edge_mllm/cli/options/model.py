"""Options of a model: which one, and how it is loaded and runs."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from edge_mllm.cli.terminal.completion import known_models

if TYPE_CHECKING:
    from edge_mllm.hub.resolve import Wanted
    from edge_mllm.session.session import Model

_log = logging.getLogger(__name__)


class EngineName(StrEnum):
    """Decoder engines."""

    onnx = "onnx"
    gguf = "gguf"


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
LayoutOption = Annotated[
    LayoutName | None,
    typer.Option(help="What of a hub repository: bundle, gguf or onnx; default: the first of these that runs here."),
]
QuantOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Which GGUF file of a hub repository, as Q8_0; default: 4 bits.")
]
EngineOption = Annotated[EngineName | None, typer.Option(help="Decoder to use; default: the bundle's first.")]
ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Default: the fast physical cores.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is loaded and how it runs; a group of options (:mod:`edge_mllm.cli.options.groups`)."""

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
            help="The same for CPUs alone: ONNX Runtime (ort), OpenVINO in float32, or in bfloat16 (for AMX)."
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
