"""What plan says of a directory is what export makes of it, whatever the layout; what one refuses, the other does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture
from tiny_ferret_ui import make_tiny_ferret_original
from tiny_internvl import make_tiny_internvl, make_tiny_internvl_chat
from tiny_llava_original import make_tiny_bunny, make_tiny_tinyllava
from tokenizers import Tokenizer

from edge_mllm_export.errors import AdapterError, CheckpointError, SourceError
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import describe_source, resolve_source


def _internvl(home: Path) -> Path:
    return make_tiny_internvl_chat(home / "chat", make_tiny_internvl(home / "native"))


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "InternVLChatModel": _internvl,
    "Bunny": lambda home: make_tiny_bunny(home / "bunny"),
    "TinyLLaVA": lambda home: make_tiny_tinyllava(home / "tinyllava"),
    "ml-ferret": lambda home: make_tiny_ferret_original(home / "ferret"),
}
"""Name of a layout -> writes a tiny checkpoint in it."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_is_of_what_the_export_opens(layout: str, tmp_path: Path) -> None:
    source = LAYOUTS[layout](tmp_path)
    (tmp_path / "scratch").mkdir()
    exported = resolve_source(str(source), tmp_path / "scratch")
    planned, opened = facts_of_source(str(source)), facts_of_source(str(exported.path))
    assert (planned.image, planned.vision, planned.context_length) == (
        opened.image,
        opened.vision,
        opened.context_length,
    )
    assert planned.towers == opened.towers
    assert planned.decoders == opened.decoders


def test_an_adapter_is_planned_as_its_base(tiny_smolvlm: Path, tmp_path: Path) -> None:
    _adapter(tmp_path, base=str(tiny_smolvlm))
    assert facts_of_source(str(tmp_path)).decoders == facts_of_source(str(tiny_smolvlm)).decoders
    _adapter(tmp_path, base="llava-1.5-7b-hf")
    for open_it in (describe_source, lambda source: resolve_source(source, tmp_path)):
        with pytest.raises(AdapterError, match=r"its base 'llava-1\.5-7b-hf' is not there"):
            open_it(str(tmp_path))


def _adapter(directory: Path, *, base: str) -> None:
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "base_model_name_or_path": base}
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def test_what_the_export_refuses_is_not_planned(tiny_smolvlm: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_smolvlm, tmp_path / "model"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    quantised = {"quantization_config": {"quant_method": "awq", "bits": 4}, "_name_or_path": "home/step-900"}
    (source / "config.json").write_text(json.dumps(config | quantised), encoding="utf-8")
    said = []
    for open_it in (describe_source, lambda name: resolve_source(name, tmp_path)):
        with pytest.raises(SourceError, match=r"AWQ, 4 bits.*export the unquantised model instead") as caught:
            open_it(str(source))
        said.append(str(caught.value))
    assert said[0] == said[1]


SLOW = ("internvl", "llava", "llava_next", "llava_onevision", "qwen2_vl")
"""Families whose published tokenizers are byte-level BPE."""


@pytest.mark.parametrize("family", SLOW)
def test_older_vocabulary_files_are_enough(family: str, tmp_path: Path) -> None:
    """Without tokenizer.json: the ids that it gave."""
    source = make_tiny(family, tmp_path)
    whole = Tokenizer.from_file(str(source / "tokenizer.json"))
    write_slow_files(source)
    (tmp_path / "scratch").mkdir()
    checkpoint = resolve_source(str(source), tmp_path / "scratch")
    check_tensors(checkpoint, find_family(checkpoint))
    found = Pair.of(checkpoint).compare([picture(60, 40)], "Is 12.50 the total? \u00e9\u4e2d 7  8\n")
    assert found.ids_equal and found.pixels_equal
    texts = (
        "What is the total?\n",
        "  1. 12.50 <|im_end|> caf\u00e9\u0301 \u4e2d\u6587 I'LL",
        "\U0001f600\t\u05e9\u05dc\u05d5\u05dd",
    )
    for text in texts:
        assert checkpoint.tokenizer().encode(text).ids == whole.encode(text).ids


def test_a_vocabulary_of_which_transformers_makes_no_tokenizer_is_named(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """Its class only reads tokenizer.json, which says more than vocabulary and merges."""
    source = Path(shutil.copytree(tiny_smolvlm, tmp_path / "model"))
    write_slow_files(source)
    with pytest.raises(CheckpointError, match=r"vocab\.json.*no vocabulary from which transformers makes a tokenizer"):
        resolve_source(str(source), tmp_path)


def write_slow_files(directory: Path) -> None:
    """Replace tokenizer.json by the files that tokenizers were saved in before it."""
    model = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
