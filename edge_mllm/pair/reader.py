"""Pictures and messages for a GGUF file with its mmproj; see :class:`edge_mllm.reader.Reader`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_mllm.budget import ImageBudget
from edge_mllm.chat_template import Message
from edge_mllm.conversation_picture import ConversationPicture, PictureCheck
from edge_mllm.decoders.protocol import IntArray
from edge_mllm.errors import PromptError, SchemaError, SettingError
from edge_mllm.image import Picture, RgbArray, load_rgb
from edge_mllm.pair.files import PairFiles
from edge_mllm.pair.mtmd import MARKER, MtmdTower, PictureLayout, VisualRun
from edge_mllm.pair.template import PictureTemplate
from edge_mllm.pair.vocabulary import LlamaVocabulary
from edge_mllm.prompt import PromptIds, Slot, check_messages
from edge_mllm.reduction.areas import TokenArea
from edge_mllm.sampling import LogitsProcessor
from edge_mllm.timings import ImageUsage, Stopwatch
from edge_mllm.vision import Encoded, Progress

VISUAL = -1
"""Stands for a visual token in a prompt's ids: a GGUF file does not say which token its template repeats."""


class PairPicture(ConversationPicture):
    """One picture as libmtmd cuts it."""

    def __init__(self, rgb: RgbArray, layout: PictureLayout) -> None:
        digest = hashlib.sha256(f"libmtmd {rgb.shape} {layout.tokens}".encode())
        digest.update(np.ascontiguousarray(rgb).data)
        super().__init__(digest.digest(), rgb=rgb, rows=None)
        self.layout = layout
        self._height, self._width = rgb.shape[:2]

    @property
    def tokens(self) -> int:
        """Visual tokens that the tower gives."""
        return self.layout.tokens

    @property
    def areas(self) -> list[TokenArea]:
        """Each run of visual tokens; libmtmd tells their rows and columns only where positions have two axes."""
        grids = [(run.grid or (1, run.count), run.grid is not None) for run in self.layout.runs]
        return [TokenArea(rows=rows, cols=cols, gridded=known) for (rows, cols), known in grids]

    @property
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens that the decoder gets; what libmtmd encodes in one piece counts as a tile."""
        tiles = len(self.layout.runs)
        size = {"width": self._width, "height": self._height}
        return ImageUsage(**size, tiles=tiles, tokens=self.prompt_tokens, source=self.source)

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, where positions have two axes."""
        return self.layout.runs[0].grid

    def tower_input(self) -> npt.NDArray[np.uint8]:
        """The picture itself, uint8 [height, width, 3]: libmtmd cuts it."""
        return self.rgb

    @property
    def ids(self) -> IntArray:
        """int64 [n]: the marks around the picture, with :data:`VISUAL` once for each visual token."""
        parts = [np.full(part.count, VISUAL) if isinstance(part, VisualRun) else part for part in self.layout.parts]
        return np.concatenate(parts).astype(np.int64)


class NoTower:
    """Stands where a tower would be; see :class:`edge_mllm.encoder.Tower`."""

    loaded = True

    def __init__(self, n_embd: int) -> None:
        self.n_embd = n_embd

    def load(self) -> None:
        """There is nothing to load."""

    def encode(
        self,
        pixels: npt.NDArray[np.float32],  # noqa: ARG002  (as every tower)
        progress: Progress | None = None,  # noqa: ARG002
        *,
        token_grid: tuple[int, int] | None = None,  # noqa: ARG002
    ) -> Encoded:
        """Never called: pictures are refused when they are handed in."""
        raise PromptError("this model takes no pictures")

    def close(self) -> None:
        """There is nothing to free."""


class PairReader:
    """Reads as chat template, vocabulary and libmtmd say."""

    def __init__(self, files: PairFiles, vocabulary: LlamaVocabulary, tower: MtmdTower | None) -> None:
        """Prepare the chat template.

        Raises:
            PromptError: The file has no chat template, or one that cannot be used.
        """
        if files.template is None:
            raise PromptError(
                f"'{files.model}' has no chat template in it; is it a base model? take its instruct version"
            )
        self._files, self._tower = files, tower
        self.tokenizer = vocabulary
        self._template = PictureTemplate(files.template, vocabulary.special_tokens, MARKER)

    @property
    def name(self) -> str:
        """As the file's metadata say."""
        return self._files.name

    @property
    def stop_token_ids(self) -> Sequence[int]:
        """What llama.cpp takes for an end of generation."""
        return self.tokenizer.ends

    def pictures(
        self,
        pictures: Sequence[Picture],
        budget: ImageBudget,
        broken: PictureCheck | None = None,  # noqa: ARG002  (libmtmd has one tiling; what it needs is checked later)
    ) -> list[PairPicture]:
        """Decode pictures and count their visual tokens.

        Raises:
            ImageError: A picture cannot be read.
            PromptError: There is no tower, or the pictures need more tokens than allowed.
            SettingError: Low detail is asked for, or tiles are to be left out.
        """
        if not pictures:
            return []
        if self._tower is None:
            raise PromptError(f"'{self._files.model}' takes no pictures without its mmproj{self._hint()}")
        if budget.detail == "low":
            raise SettingError(
                "libmtmd cuts pictures as the model does; --detail low needs a bundle (edge-mllm export)"
            )
        if budget.reduction is not None and budget.reduction.on_pixels:
            raise SettingError(
                f"libmtmd cuts pictures itself, so image reduction '{budget.reduction.text}' cannot leave out tiles; "
                "it needs a bundle (edge-mllm export)"
            )
        decoded = [load_rgb(picture) for picture in pictures]
        found = [PairPicture(rgb, self._tower.layout(rgb)) for rgb in decoded]
        needed = sum(picture.tokens for picture in found)
        if budget.max_image_tokens is not None and needed > budget.max_image_tokens:
            raise PromptError(
                f"the pictures need {needed} visual tokens, max_image_tokens allows {budget.max_image_tokens}; libmtmd "
                "cannot tile them more coarsely: make the pictures smaller, or export a bundle"
            )
        for picture in found:
            picture.reduce(budget.reduction)
        return found

    def text_ids(self, text: str) -> IntArray:
        """Token ids int64 [n] of a text by itself."""
        return self.tokenizer.encode(text)

    def prompt(self, messages: Sequence[Message], pictures: Sequence[ConversationPicture]) -> PromptIds:
        """Render, tokenise what lies between pictures, and put their marks and visual tokens where they go."""
        own = [picture for picture in pictures if isinstance(picture, PairPicture)]
        check_messages(messages, len(own), self._template.reserved)
        text = self._template.render(messages, len(own))
        first, *rest = text.split(MARKER)
        ids = [self._begin(text), self.tokenizer.encode(first)]
        slots = []
        for picture, piece in zip(own, rest, strict=True):
            before, marks = sum(map(len, ids)), picture.ids
            places = np.flatnonzero(marks == VISUAL)
            slots.append(Slot(before + int(places[0]), int(places[-1] - places[0]) + 1, len(places)))
            ids += [marks, self.tokenizer.encode(piece)]
        return PromptIds(ids=np.concatenate(ids), slots=tuple(slots), image_token_id=VISUAL, text=text)

    def grammar(self, schema: str, watch: Stopwatch) -> LogitsProcessor:  # noqa: ARG002  (as every reader)
        """Not for a GGUF file.

        Raises:
            SchemaError: Always.
        """
        raise SchemaError("a GGUF file has no tokenizer.json, which that needs; export a bundle (edge-mllm export)")

    def weight_bytes(self, *, pictures: bool) -> int:
        """Bytes of the files."""
        files = [self._files.model, *([self._files.mmproj] if pictures and self._files.mmproj else [])]
        return sum(file.stat().st_size for file in files)

    def _begin(self, text: str) -> IntArray:
        """The token before every text, unless the template wrote it."""
        begin, written = self.tokenizer.begin, self.tokenizer.special_tokens.get("bos_token")
        missing = begin is not None and not (written and text.startswith(written))
        return np.array([begin] if missing else [], np.int64)

    def _hint(self) -> str:
        near = self._files.neighbours
        return f"; give it with --mmproj, perhaps {self._files.model.parent / near[0]}" if near else " (--mmproj FILE)"
