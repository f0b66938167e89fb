"""Options of a question and how to answer it: pictures, their budget, sampling, limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from edge_mllm.answer.budget import ImageBudget
    from edge_mllm.answer.limits import Limits
    from edge_mllm.answer.request import Request

ImagesOption = Annotated[
    list[str] | None,
    typer.Option("-i", "--image", metavar="IMAGE...", help="One picture or several; - is standard input."),
]
MaxNewTokensOption = Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]


class DetailName(StrEnum):
    """How finely pictures are tiled."""

    low = "low"
    auto = "auto"
    high = "high"


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
