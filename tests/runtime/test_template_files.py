"""Which file's chat template is taken: what transformers' own loading code takes, file by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_mllm.bundle.template_files import NAMED, NoTemplateError, TemplateFileError, find_template

Files = dict[str, Any]
JINJA, LEGACY = "chat_template.jinja", "chat_template.json"
SETTINGS, TOKENIZER = "processor_config.json", "tokenizer_config.json"


def write(directory: Path, files: Files) -> Path:
    """Text files as they are, others as JSON objects with a chat_template."""
    for name, value in files.items():
        file = directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(value if name.endswith(".jinja") else json.dumps({"chat_template": value}), encoding="utf-8")
    return directory


def transformers_takes(directory: Path) -> str:
    """The processor's template, or the tokenizer's where the processor has none."""
    from transformers import ProcessorMixin

    settings, _ = ProcessorMixin.get_processor_dict(directory)
    found = settings.get("chat_template")
    if found is None:
        found = _tokenizer_template(directory)
    return found["default"] if isinstance(found, dict) else found


def _tokenizer_template(directory: Path) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    Tokenizer(BPE()).save(str(directory / "tokenizer.json"))
    return PreTrainedTokenizerFast.from_pretrained(directory).get_chat_template()


@pytest.mark.parametrize(
    ("files", "taken", "passed_over"),
    [
        ({JINJA: "b", LEGACY: "a"}, LEGACY, (JINJA,)),
        ({JINJA: "a", LEGACY: "a"}, LEGACY, ()),
        ({SETTINGS: "a", JINJA: "b", LEGACY: "c", TOKENIZER: "d"}, SETTINGS, (LEGACY, JINJA, TOKENIZER)),
        ({SETTINGS: "a"}, SETTINGS, ()),
        ({SETTINGS: {"default": "a", "tool_use": "b"}}, SETTINGS, ()),
        ({JINJA: "a", TOKENIZER: "b"}, JINJA, (TOKENIZER,)),
        ({JINJA: "a", f"{NAMED}/tool_use.jinja": "b"}, JINJA, ()),
        ({TOKENIZER: "a"}, TOKENIZER, ()),
        ({TOKENIZER: [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "a"}]}, TOKENIZER, ()),
        ({LEGACY: "", TOKENIZER: "a"}, TOKENIZER, ()),
    ],
)
def test_the_template_is_the_one_that_transformers_takes(
    tmp_path: Path, files: Files, taken: str, passed_over: tuple[str, ...]
) -> None:
    found = find_template(write(tmp_path, files))
    assert (found.text, found.file, found.others) == ("a", taken, passed_over)
    assert found.text == transformers_takes(tmp_path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({f"{NAMED}/tool_use.jinja": "b"}, "has no template called default, which of tool_use is meant"),
        ({TOKENIZER: [{"name": "tool_use", "template": "b"}]}, "tokenizer_config.json.*which of tool_use"),
        ({SETTINGS: {"tool_use": "b"}}, "processor_config.json, chat_template.*which of tool_use"),
        ({LEGACY: "a", f"{NAMED}/tool_use.jinja": "b"}, "chat_template.json.*contradicts the folder"),
        ({LEGACY: ["a"]}, "chat_template.json, chat_template: is a list"),
        ({SETTINGS: ""}, "processor_config.json, chat_template: is empty"),
    ],
)
def test_what_transformers_cannot_use_is_refused_by_file(tmp_path: Path, files: Files, says: str) -> None:
    with pytest.raises(TemplateFileError, match=says):
        find_template(write(tmp_path, files))


def test_without_any_template_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(NoTemplateError):
        find_template(write(tmp_path, {TOKENIZER: None}))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / JINJA).write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateFileError, match=r"chat_template\.jinja.*not UTF-8"):
        find_template(tmp_path)
    (tmp_path / LEGACY).write_text("{")
    with pytest.raises(TemplateFileError, match=r"chat_template\.json.*not JSON"):
        find_template(tmp_path)
