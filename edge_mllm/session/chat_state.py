"""A chat as arrays and JSON values, and back: what :mod:`edge_mllm.session.chat_file` stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.decoding.keys import Key
from edge_mllm.answer.pictures.bundle_picture import PictureOrigin, PicturePart
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.arrays import IntArray
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.bundle.tilers import Tiler
from edge_mllm.decoders.protocol import DecoderState
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.prompt.template import Message
from edge_mllm.session.chat_file import ChatFile
from edge_mllm.typed_json import FieldError, plain, read_typed


@dataclass(frozen=True)
class ChatState:
    """Everything a chat needs to go on."""

    messages: Sequence[Message]
    pictures: Sequence[ConversationPicture]
    keys: Sequence[Key]
    """One for each cell of ``state``."""
    state: DecoderState


def pack_chat(chat: ChatState) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """JSON values and arrays of a chat."""
    digests: list[bytes] = []
    cells = np.empty((len(chat.keys), 2), np.int64)
    for index, key in enumerate(chat.keys):
        if isinstance(key, int):
            cells[index] = -1, key
            continue
        if key[0] not in digests:
            digests.append(key[0])
        cells[index] = digests.index(key[0]), key[1]
    head = {
        "messages": list(chat.messages),
        "pictures": [_picture_head(each) for each in chat.pictures if isinstance(each, PicturePart)],
        "digests": [digest.hex() for digest in digests],
    }
    arrays = {"cells": cells, "after": chat.state.after}
    arrays |= {f"picture.{index}": each.content for index, each in enumerate(chat.pictures)}
    arrays |= {f"kept.{index}": each.kept for index, each in enumerate(chat.pictures) if each.kept is not None}
    arrays |= {f"cache.{index}": each for index, each in enumerate(chat.state.arrays)}
    return head, arrays


def unpack_chat(file: ChatFile, spec: BundleSpec) -> ChatState:
    """The chat that :func:`pack_chat` took apart.

    Raises:
        ValueError: Something in it has another form.
        KeyError: Something is missing.
    """
    arrays, head = file.arrays, file.head
    digests = [bytes.fromhex(text) for text in head["digests"]]
    keys: list[Key] = [
        int(value) if picture < 0 else (digests[picture], int(value)) for picture, value in arrays["cells"].tolist()
    ]
    after = arrays["after"]
    if len(after) != len(keys):
        raise ValueError("the number of its cells")
    pictures = [_picture(entry, arrays[f"picture.{i}"], spec) for i, entry in enumerate(head["pictures"])]
    for index, part in enumerate(pictures):
        part.kept = _kept(part, arrays.get(f"kept.{index}"))
    messages = _messages(head["messages"], len(pictures))
    cache = tuple(arrays[f"cache.{i}"] for i in range(sum(name.startswith("cache.") for name in arrays)))
    return ChatState(messages, pictures, keys, DecoderState(after, cache))


def _messages(saved: Any, pictures: int) -> list[dict[str, Any]]:
    """What was said, checked: texts of roles, with as many places for pictures as there are pictures."""
    found: list[dict[str, Any]] = []
    places = 0
    for message in saved if isinstance(saved, list) else [saved]:
        items = message.get("content") if isinstance(message, dict) else None
        if not isinstance(items, list) or not isinstance(message.get("role"), str):
            raise ValueError("a message")  # noqa: TRY004  (as what else is damaged)
        for item in items:
            kind = item.get("type") if isinstance(item, dict) else None
            if kind != "image" and not (kind == "text" and isinstance(item.get("text"), str)):
                raise ValueError("a message's content")
            places += kind == "image"
        found.append({"role": message["role"], "content": items})
    if places != pictures:
        raise ValueError("the number of its pictures")
    return found


def _picture_head(part: PicturePart) -> dict[str, Any]:
    origin = part.origin
    tiler = plain(asdict(origin.tiler))
    head = {"width": origin.width, "height": origin.height, "digest": origin.digest.hex()}
    head |= {"tiler": tiler, "reduced_by": origin.reduced_by}
    if part.reduction is not None:
        query = None if part.query is None else list(part.query)
        head |= {"reduction": part.reduction.text, "query": query, "skipped": list(origin.skipped)}
    return head


def _picture(entry: dict[str, Any], content: npt.NDArray[Any], spec: BundleSpec) -> PicturePart:
    try:
        tiler = read_typed(Tiler, entry["tiler"], "tiler")
    except FieldError as error:
        raise ValueError(str(error)) from error
    size = int(entry["width"]), int(entry["height"])
    skipped = tuple(int(place) for place in entry.get("skipped", ()))
    origin = PictureOrigin(*size, bytes.fromhex(entry["digest"]), tiler, entry.get("reduced_by"), skipped)
    if content.dtype == np.uint8:
        part = PicturePart(origin, spec, rgb=content, rows=None)
        fits = content.shape == (origin.height, origin.width, 3)
    else:
        part = PicturePart(origin, spec, rgb=None, rows=content)
        fits = content.shape == (part.tokens, spec.decoder.row_width)
    if not fits:
        raise ValueError("a picture's size")
    if "reduction" in entry:
        part.reduce(TokenReduction.parse(entry["reduction"]))
        part.query = None if entry["query"] is None else tuple(int(token) for token in entry["query"])
    return part


def _kept(part: PicturePart, kept: npt.NDArray[Any] | None) -> IntArray | None:
    """The places that were kept, checked."""
    if kept is None:
        return None
    ordered = kept.ndim == 1 and len(kept) == part.prompt_tokens and (np.diff(kept) > 0).all()
    if part.thinned is None or not ordered or not 0 <= kept[0] <= kept[-1] < part.tokens:
        raise ValueError("the tokens that were kept of a picture")
    return kept.astype(np.int64)
