"""Chat templates of all kinds: looked at before anything is written, and compared with transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture

from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.write.sections import check_sections

TEXT_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As language models have it: a list of items is a TypeError."""
LISTED = TEXT_ONLY.replace("message['content'] +", "message['content'] | string +")
"""The same, but a list is written down as Python."""
TOOLS_AND_DATES = (
    "{{ strftime_now('%Y') | length }}{% if tools is not none and tools is defined %}tools{% endif %}"
    "{% if date_string is not defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}\n"
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for item in message['content'] %}{{ '<image>' if item['type'] == 'image' else item['text'] }}{% endfor %}"
    "{% endif %}{% endfor %}"
)


def place(source: Path, target: Path, template: str, *, file: str = "chat_template.jinja") -> Path:
    """A copy of a checkpoint with one template, in one file."""
    shutil.copytree(source, target)
    for name in ("chat_template.jinja", "chat_template.json"):
        (target / name).unlink(missing_ok=True)
    if file.endswith(".jinja"):
        (target / file).write_text(template, encoding="utf-8")
    else:
        document = json.loads((target / file).read_text(encoding="utf-8")) if (target / file).is_file() else {}
        (target / file).write_text(json.dumps(document | {"chat_template": template}), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("templates")
    return {family: make_tiny(family, home) for family in ("llava", "qwen2_vl")}


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("template", [TEXT_ONLY, LISTED])
def test_a_template_that_wants_texts_gives_what_its_user_writes(
    checkpoints: dict[str, Path], tmp_path: Path, family: str, template: str
) -> None:
    pair = Pair(place(checkpoints[family], tmp_path / "x", template))
    for count in range(3):
        found = pair.compare([picture(30 + 40 * number, 50) for number in range(count)], "What  5 is it?")
        assert found.ids_equal and found.pixels_equal
    mark = {"llava": "<image>", "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>"}[family]
    text = pair.template.render([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}], {})
    assert text == f"<|im_start|>user\n{mark}\nHi<|im_end|>\n<|im_start|>assistant\n"
    plain = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert pair.template.render(plain, {}) == ChatTemplate(template).render(plain, {})


def test_an_export_of_it_answers(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import edge_mllm

    source = place(checkpoints["llava"], tmp_path / "x", TEXT_ONLY)
    options = ExportOptions(format="gguf", quant="f16", vision="fp32", allow_loss=True)
    spec = export_bundle(str(source), tmp_path / "x.edge", options)
    assert spec.verification["processor"]["template"] == {
        "file": "chat_template.jinja",
        "passed_over": [],
        "content": "text",
    }
    ids = spec.verification["token_ids"]
    assert ids["equal"] == ids["prompts"]
    with edge_mllm.load(tmp_path / "x.edge", threads=1) as model:
        assert model.generate("Hi", images=[picture(40, 40)], max_new_tokens=2).usage.image_tokens > 0


@pytest.mark.parametrize("file", ["processor_config.json", "chat_template.json", "tokenizer_config.json"])
def test_a_template_is_found_in_every_file(checkpoints: dict[str, Path], tmp_path: Path, file: str) -> None:
    source = place(checkpoints["llava"], tmp_path / "x", TOOLS_AND_DATES, file=file)
    pair = Pair(source)
    found = pair.compare([picture(40, 40)], "What?")
    assert found.ids_equal and found.pixels_equal
    assert pair.tokenizer.decode(found.ids.tolist(), skip_special_tokens=False).startswith("426 Jul 2024\n<image>")
    assert pair.processor.described["template"]["file"] == file


def test_the_file_that_transformers_takes_wins(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Both were there in published checkpoints; the other one used to be taken, and compared with itself."""
    source = place(checkpoints["llava"], tmp_path / "x", TEXT_ONLY)
    (source / "chat_template.json").write_text(json.dumps({"chat_template": TOOLS_AND_DATES}), encoding="utf-8")
    pair = Pair(source)
    assert pair.compare([picture(40, 40)], "What?").ids_equal
    assert pair.processor.described["template"] == {
        "file": "chat_template.json",
        "passed_over": ["chat_template.jinja"],
        "content": "items",
    }


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ messages[0]['content'] | length }}", "does not show what the user says"),
        ("{{ raise_exception('no') }}", "refused the messages: no"),
        ("{% for m in messages %", "cannot be read"),
        (
            "{% for m in messages %}{% if m.content is string %}{{ m.content | replace('<image>', '') }}{% else %}"
            "{% for i in m.content %}{{ i.text }}{% endfor %}{% endif %}{% endfor %}",
            "writes 0 times <image> for one picture",
        ),
        ("", "is missing; is this a base model"),
    ],
)
def test_a_template_that_shows_no_picture_is_refused_before_anything_is_written(
    checkpoints: dict[str, Path], tmp_path: Path, template: str, says: str
) -> None:
    source = place(checkpoints["llava"], tmp_path / "x", template)
    with pytest.raises(CheckpointError, match=says) as caught:
        check_sections(opened := open_checkpoint(source), find_family(opened))
    assert "chat_template.jinja', chat_template" in str(caught.value)
    steps: list[str] = []
    with pytest.raises(CheckpointError, match=says):
        export_bundle(str(source), tmp_path / "x.edge", ExportOptions(verify=False), steps.append)
    assert not [step for step in steps if step.startswith("writing")]


def test_several_templates_without_a_default_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = place(checkpoints["llava"], tmp_path / "x", "")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text(TEXT_ONLY)
    (source / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="which of tool_use is meant"):
        check_sections(opened := open_checkpoint(source), find_family(opened))


def test_names_of_tokens_are_those_that_transformers_gives(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A name that only special_tokens_map.json or the class has, and a token with a name of its own."""
    template = "{{ pad_token }}{{ mark_token }}" + TOOLS_AND_DATES
    source = place(checkpoints["llava"], tmp_path / "x", template)
    document: dict[str, Any] = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    document.pop("pad_token")
    document["extra_special_tokens"] = {"mark_token": "<|im_end|>"}
    document.pop("added_tokens_decoder")
    (source / "tokenizer_config.json").write_text(json.dumps(document), encoding="utf-8")
    (source / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|im_start|>"}), encoding="utf-8")
    pair = Pair(source)
    found = pair.compare([picture(40, 40)], "What?")
    assert found.ids_equal
    assert pair.tokenizer.decode(found.ids.tolist(), skip_special_tokens=False).startswith("<|im_start|><|im_end|>4")
