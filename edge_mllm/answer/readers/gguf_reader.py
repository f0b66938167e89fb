"""Pictures and messages for a GGUF file with its mmproj; see :class:`edge_mllm.answer.readers.reader.Reader`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.decoding.sampling import LogitsProcessor
from edge_mllm.answer.pictures.mtmd_picture import VISUAL, PairPicture
from edge_mllm.answer.pictures.picture import ConversationPicture, PictureCheck
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import IntArray
from edge_mllm.bundle.gguf_pair import PairFiles
from edge_mllm.errors import PromptError, SchemaError, SettingError
from edge_mllm.picture.image import Picture, load_rgb, read_header, read_once
from edge_mllm.prompt.build import PromptIds, Slot, check_messages
from edge_mllm.prompt.gguf_template import PictureTemplate
from edge_mllm.prompt.gguf_vocabulary import LlamaVocabulary
from edge_mllm.prompt.template import Message
from edge_mllm.tower.mtmd import MARKER, MtmdTower


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
        self.tokenizer, self.name, self.stop_token_ids = vocabulary, files.name, vocabulary.ends
        self._template = PictureTemplate(files.template, vocabulary.special_tokens, MARKER)

    def pictures(
        self,
        pictures: Sequence[Picture],
        budget: ImageBudget,
        broken: PictureCheck | None = None,
        *,
        decode: bool = True,  # noqa: ARG002  (libmtmd counts visual tokens of pixels alone)
    ) -> list[PairPicture]:
        """Decode pictures and count their visual tokens; libmtmd has one tiling.

        Raises:
            ImageError: A picture cannot be read.
            PromptError: There is no tower, or the pictures need more tokens than allowed.
            SettingError: Low detail is asked for, or tiles are to be left out.
        """
        if not pictures:
            return []
        if self._tower is None:
            raise PromptError(f"'{self._files.model}' takes no pictures without its mmproj{self._hint()}")
        if "low" in budget.details_of(len(pictures)):
            raise SettingError(
                "libmtmd cuts pictures as the model does; `detail='low'` needs a bundle (edge-mllm export)"
            )
        if budget.reduction is not None and budget.reduction.on_pixels:
            raise SettingError(
                f"libmtmd cuts pictures itself, so image reduction '{budget.reduction.text}' cannot leave out tiles; "
                "it needs a bundle (edge-mllm export)"
            )
        pictures = [read_once(picture) for picture in pictures]
        if broken is not None:
            broken.refuse([PairPicture.planned(read_header(picture)) for picture in pictures])
        decoded = [load_rgb(picture) for picture in pictures]
        found = [PairPicture.decoded(rgb, self._tower.layout(rgb)) for rgb in decoded]
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

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token as llama.cpp writes them."""
        return self.tokenizer.piece(token, special=False)

    def prompt(self, messages: Sequence[Message], pictures: Sequence[ConversationPicture]) -> PromptIds:
        """Render, tokenise what lies between pictures, and put their marks and visual tokens where they go."""
        own = [picture for picture in pictures if isinstance(picture, PairPicture)]
        check_messages(messages, len(own))
        text = self._template.render(messages, len(own))
        first, *rest = text.split(MARKER)
        ids = [self._begin(text), self._text_ids(first)]
        slots = []
        for picture, piece in zip(own, rest, strict=True):
            before, marks = sum(map(len, ids)), picture.ids
            places = np.flatnonzero(marks == VISUAL)
            slots.append(Slot(before + int(places[0]), int(places[-1] - places[0]) + 1, len(places)))
            ids += [marks, self._text_ids(piece)]
        text = self._template.marks.show(text)
        return PromptIds(ids=np.concatenate(ids), slots=tuple(slots), image_token_id=VISUAL, text=text)

    def _text_ids(self, rendered: str) -> IntArray:
        """Token ids int64 [n] of what the template wrote between pictures; marks that were said are text."""
        pieces = self._template.marks.pieces(rendered)
        ids = [self.tokenizer.encode(piece, special=not mark) for piece, mark in pieces]
        return np.concatenate([np.zeros(0, np.int64), *ids])

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
        return (
            f"; give it as `mmproj`, perhaps {self._files.model.parent / near[0]}" if near else "; give it as `mmproj`"
        )
