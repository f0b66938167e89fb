"""Messages and pictures to token ids, with the places where visual embeddings go.

User text is tokenised as the reference does it: a special token written in it (an end-of-turn mark, say) is that
token. The two exceptions are the image token and the template's placeholder for a picture. In a message they are text
like any other (:mod:`edge_mllm.prompt.plain_text`), because they would claim a place that belongs to a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_mllm.bundle.spec import BundleSpec, PromptSpec
from edge_mllm.errors import PromptError
from edge_mllm.picture.tile_plan import TilePlan
from edge_mllm.prompt.canvas import PictureTokens, canvas_places
from edge_mllm.prompt.plain_text import IMAGE_TOKEN, Marks, renamed
from edge_mllm.prompt.template import ChatTemplate, Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Slot:
    """One picture's place in the ids: from its first visual token to its last, marker tokens between included."""

    start: int
    length: int
    visual: int
    """Visual tokens in it, without the markers."""


@dataclass(frozen=True, kw_only=True)
class PromptIds:
    """A prompt, ready to be spliced."""

    ids: npt.NDArray[np.int64]
    """int64 [n], with the image token repeated once per visual token."""
    slots: tuple[Slot, ...]
    """One per picture, in order."""
    image_token_id: int
    text: str
    """What was tokenised, picture markers written out."""
    places: npt.NDArray[np.int64] | None = None
    """int64 [axes + 1, n]: positions of each token, and the position that follows it, where those of marks depend on
    the whole picture; else None: they follow from the ids and from each picture's grid."""

    @property
    def image_tokens(self) -> int:
        """Visual tokens of all pictures."""
        return sum(slot.visual for slot in self.slots)


def build_prompt(
    messages: Sequence[Message],
    pictures: Sequence[TilePlan],
    spec: BundleSpec,
    tokenizer: Tokenizer,
    template: ChatTemplate,
) -> PromptIds:
    """Render, write the pictures' markers out, tokenise, and check that every picture has its tokens.

    Args:
        messages: Roles and contents; each picture is an item ``{"type": "image"}`` of a content list.
        pictures: The plan of each picture, in the order of those items.
        spec: The bundle's specification.
        tokenizer: The bundle's tokenizer.
        template: The bundle's chat template.

    Raises:
        PromptError: Pictures and places for them differ in number, or the template refused the messages.
    """
    check_messages(messages, len(pictures))
    marks = Marks((spec.prompt.image_token, spec.prompt.placeholder))
    rendered = template.render(marks.hide(messages), spec.prompt.special_tokens)
    pieces = [marks.show(piece) for piece in rendered.split(spec.prompt.placeholder)]
    if len(pieces) - 1 != len(pictures):
        raise PromptError(
            f"the chat template made {len(pieces) - 1} places for {len(pictures)} pictures; this model's template "
            "may not take pictures where these messages have them"
        )
    per_tile = spec.vision.tokens_per_tile
    visual = [plan.tokens(per_tile) for plan in pictures]
    text = _written(pieces, pictures, spec.prompt, per_tile)
    ids = _tokenise(text, spec.prompt, tokenizer)
    if np.count_nonzero(ids == spec.prompt.image_token_id) != sum(visual):  # the image token stands in a text
        own = replace(spec.prompt, image_token=IMAGE_TOKEN)
        other = renamed(tokenizer, spec.prompt.image_token)
        ids = _tokenise(_written(pieces, pictures, own, per_tile), own, other)
    slots = _find_slots(ids, visual, spec.prompt.image_token_id)
    prompt = PromptIds(ids=ids, slots=slots, image_token_id=spec.prompt.image_token_id, text=text)
    return _on_canvas(prompt, pictures, spec.prompt) if spec.prompt.canvas_marks else prompt


def _on_canvas(prompt: PromptIds, pictures: Sequence[TilePlan], spec: PromptSpec) -> PromptIds:
    ids, tokens = prompt.ids, []
    for plan, slot in zip(pictures, prompt.slots, strict=True):
        own = np.flatnonzero(ids[slot.start : slot.start + slot.length] == prompt.image_token_id)
        tokens.append(PictureTokens(plan, own + slot.start))
    return replace(prompt, places=canvas_places(ids, tokens, spec.canvas_marks))


def _written(pieces: Sequence[str], pictures: Sequence[TilePlan], spec: PromptSpec, tokens_per_tile: int) -> str:
    """What the template wrote, with every picture's tokens and markers between its pieces."""
    written = [
        picture_text(plan, spec, tokens_per_tile, number) + piece
        for number, (plan, piece) in enumerate(zip(pictures, pieces[1:], strict=True))
    ]
    return pieces[0] + "".join(written)


def picture_text(plan: TilePlan, spec: PromptSpec, tokens_per_tile: int, number: int = 0) -> str:
    """One picture as text, the ``number``-th of its conversation: visual tokens between the layout's markers."""
    layout = spec.layout
    if plan.stitch is not None or (plan.count == 1 and (plan.has_global or not plan.skipped)):
        shown = layout.before_single + spec.image_token * plan.tokens(tokens_per_tile) + layout.after_single
    else:
        shown = _grid_text(plan, spec, tokens_per_tile)
    return layout.before_image.replace("{picture}", str(number)) + shown + layout.after_image


def _grid_text(plan: TilePlan, spec: PromptSpec, tokens_per_tile: int) -> str:
    layout, whole, rows = spec.layout, "", []
    visual = [spec.image_token * count for count in plan.tile_tokens(tokens_per_tile)]
    if plan.has_global:
        whole = layout.before_global + visual.pop(0 if plan.global_first else -1) + layout.after_global
    rest = iter(visual)
    for row in range(plan.rows):
        tiles = []
        for col in range(plan.cols):
            if row * plan.cols + col in plan.skipped:
                continue
            numbers = {"{row}": row + 1, "{col}": col + 1, "{index}": row * plan.cols + col + 1}
            before = layout.before_tile
            for name, number in numbers.items():
                before = before.replace(name, str(number))
            tiles.append(before + next(rest) + layout.after_tile)
        if tiles:
            rows.append("".join(tiles) + layout.after_row)
    grid = layout.between_rows.join(rows)
    return whole + grid if plan.global_first else grid + whole


def thin_prompt(prompt: PromptIds, kept: Sequence[npt.NDArray[np.int64] | None]) -> PromptIds:
    """A prompt with fewer visual tokens; every mark around and between tiles stays, and every position.

    Args:
        prompt: With all of them.
        kept: For each picture the places of the visual tokens that stay, ascending int64; None for all.
    """
    if all(chosen is None for chosen in kept):
        return prompt
    places = np.flatnonzero(prompt.ids == prompt.image_token_id)
    stays = np.ones(len(prompt.ids), bool)
    visual, done = [], 0
    for slot, chosen in zip(prompt.slots, kept, strict=True):
        own = places[done : done + slot.visual]
        done += slot.visual
        visual.append(slot.visual if chosen is None else len(chosen))
        if chosen is not None:
            stays[own] = False
            stays[own[chosen]] = True
    ids, given = prompt.ids[stays], prompt.places
    slots = _find_slots(ids, visual, prompt.image_token_id)
    return replace(prompt, ids=ids, slots=slots, places=None if given is None else given[:, stays])


def check_messages(messages: Sequence[Message], pictures: int) -> None:
    """Check the form of messages before a template sees them.

    Args:
        messages: Roles and contents.
        pictures: How many pictures go with them.

    Raises:
        PromptError: A message has no role or content, or there are other pictures.
    """
    if not messages:
        raise PromptError("there is no message")
    items = 0
    for message in messages:
        content = message.get("content")
        if "role" not in message or not isinstance(content, str | list | tuple):
            raise PromptError("a message needs a role and a content that is text or a list of items")
        if not isinstance(content, str):
            items += sum(1 for item in content if isinstance(item, Mapping) and item.get("type") == "image")
    if items != pictures:
        raise PromptError(f"the messages have places for {items} pictures, {pictures} were given")


def _tokenise(text: str, spec: PromptSpec, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Ids as the reference processor gives them: a template that writes the begin token itself gets no second one."""
    begin = spec.special_tokens.get("bos_token")
    written = bool(begin) and text.startswith(str(begin))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError("the text has characters that are not Unicode (a lone surrogate)") from error
    ids = tokenizer.encode(text, add_special_tokens=not written).ids
    if spec.bos_token_id is not None and not written and ids[:1] != [spec.bos_token_id]:
        ids = [spec.bos_token_id, *ids]
    return np.asarray(ids, np.int64)


def _find_slots(ids: npt.NDArray[np.int64], visual: Sequence[int], image_token_id: int) -> tuple[Slot, ...]:
    places = np.flatnonzero(ids == image_token_id)
    if len(places) != sum(visual):
        raise PromptError(
            f"the prompt has {len(places)} image tokens but the pictures need {sum(visual)}; "
            "the text must not contain the image token in any form"
        )
    slots, done = [], 0
    for count in visual:
        start, last = int(places[done]), int(places[done + count - 1])
        slots.append(Slot(start, last + 1 - start, count))
        done += count
    return tuple(slots)
