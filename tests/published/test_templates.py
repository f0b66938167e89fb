"""Published directories whose chat template takes texts: read as an export of the same files reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import chat, picture
from PIL import Image

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.readers.reader import BundleReader
from edge_mllm.errors import BundleError
from edge_mllm.session.files import open_directory

TEXT_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As language models have it: a list of items is a TypeError."""
LISTED = TEXT_ONLY.replace("message['content'] +", "message['content'] | string +")
"""The same, but a list is written down as Python."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with ONNX files beside them, which nobody opens here."""
    home = tmp_path_factory.mktemp("texts")
    found = {name: make_tiny(name, home) for name in ("idefics3", "llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl")}
    for directory in found.values():
        for stem in ("embed_tokens", "vision_encoder", "decoder_model_merged"):
            (directory / f"{stem}.onnx").write_bytes(b"")
    return found


def _put(directory: Path, template: str) -> None:
    (directory / "chat_template.json").unlink(missing_ok=True)
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


@pytest.mark.parametrize("name", ["idefics3", "llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("template", [TEXT_ONLY, LISTED])
def test_a_template_that_wants_texts_gives_the_ids_of_transformers(
    directories: dict[str, Path], name: str, template: str
) -> None:
    _put(directories[name], template)
    pair = Pair(directories[name])
    reader = BundleReader(open_directory(directories[name]), "onnx")
    assert pair.processor.described["template"]["content"] == "text"
    for count in range(3):
        rgbs = [picture(60 + 40 * number, 50) for number in range(count)]
        pictures = reader.pictures([Image.fromarray(rgb) for rgb in rgbs], ImageBudget())
        ids = reader.prompt(chat("What  5 is it?", count), pictures).ids
        assert np.array_equal(ids, pair.reference(rgbs, "What  5 is it?")["input_ids"][0])


def test_one_that_shows_no_picture_is_refused_as_an_export_refuses_it(directories: dict[str, Path]) -> None:
    _put(directories["llava"], "{% for m in messages %}{% for i in m.content %}{{ i.text }}{% endfor %}{% endfor %}")
    says = r"chat_template\.jinja, chat_template: the chat template writes 0 times <image> for one picture"
    with pytest.raises(BundleError, match=says):
        open_directory(directories["llava"])
