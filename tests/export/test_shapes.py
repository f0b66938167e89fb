"""Shapes: sizes of the published models, and a small plan written for real."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import SourceError
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.shapes import (
    SHAPES,
    ShapePlan,
    build_tokenizer,
    load_shape,
    open_shape,
    tensor_shapes,
    write_shape,
)

PUBLISHED = {
    "smolvlm-256m": 256_484_928,
    "smolvlm-500m": 507_482_304,
    "smolvlm-2.2b": 2_246_272_880,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3.5-0.8b": 852_985_920,
    "gemma3-4b": 4_300_079_472,
}
"""Parameter counts that the hub states."""


def test_llava_interleaves_size_is_that_of_the_published_file() -> None:
    """model.safetensors has 1.73 GB of bfloat16."""
    held = sum(math.prod(shape) for shape in tensor_shapes(load_shape("llava-interleave-0.5b").config).values())
    assert 2 * held == pytest.approx(1.73e9, abs=5e6)


def test_ferret_uis_size_is_that_of_the_published_files() -> None:
    """6.77 GB of bfloat16 in two files, with the head and the region sampler, which are left out."""
    held = sum(math.prod(shape) for shape in tensor_shapes(load_shape("ferret-ui-gemma2b").config).values())
    head, width, inside = 256_001 * 2048, 1024, 1024 + 2
    layer = inside * inside + inside + 2 * inside * width + width + 2 * width
    sampler = 2 * layer + 32 * width * width + width + width * 2048 + 2048
    assert 2 * (held + head + sampler) == pytest.approx(4.95e9 + 1.82e9, abs=1e7)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert sum(math.prod(shape) for shape in tensor_shapes(load_shape(name).config).values()) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "size", "ids"),
    [
        ("smolvlm-256m", 49280, {"<global-img>": 49152, "<image>": 49190, "<end_of_utterance>": 49279}),
        ("smolvlm-500m", 49280, {"<row_1_col_1>": 49153, "<row_6_col_6>": 49188, "<fake_token_around_image>": 49189}),
        ("smolvlm-2.2b", 49155, {"<image>": 49153, "<end_of_utterance>": 49154, "<global-img>": None}),
    ],
)
def test_special_tokens_have_the_published_ids(name: str, size: int, ids: dict[str, int | None]) -> None:
    plan = load_shape(name)
    tokenizer = build_tokenizer(plan.tokenizer)
    assert tokenizer.get_vocab_size() == size == plan.config["text_config"]["vocab_size"]
    always = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<empty_output>": 16}
    for text, id_ in {**always, **ids}.items():
        assert tokenizer.token_to_id(text) == id_
    assert plan.config["image_token_id"] == tokenizer.token_to_id("<image>")


@pytest.mark.parametrize(("name", "tokens", "edge"), [("smolvlm-256m", 64, 2048), ("smolvlm-2.2b", 81, 1536)])
def test_processor_settings_are_the_published_ones(name: str, tokens: int, edge: int) -> None:
    plan = load_shape(name)
    assert plan.processor["image_seq_len"] == tokens
    assert plan.preprocessor["size"] == {"longest_edge": edge}


def shrunk() -> ShapePlan:
    """The 500M plan with small layers, so that all of its path is walked in a second."""
    plan = load_shape("smolvlm-500m")
    text = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
    }
    vision = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    added = tuple(name for name in plan.tokenizer.added if "reserved" not in name)
    sizes = {"vocab_size": 1000 + len(added), "intermediate_size": 64}
    config: dict[str, Any] = plan.config | {
        "text_config": plan.config["text_config"] | text | sizes,
        "vision_config": plan.config["vision_config"] | vision,
        "image_token_id": 1000 + added.index("<image>"),
    }
    return replace(plan, config=config, tokenizer=replace(plan.tokenizer, base_size=1000, added=added))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory = tmp_path_factory.mktemp("shape") / "shape-small"
    write_shape(shrunk(), directory)
    return open_checkpoint(directory, id="shape:small", random_weights=True)


def test_transformers_loads_it_without_a_missing_tensor(small: Checkpoint) -> None:
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, info = AutoModelForImageTextToText.from_pretrained(small.path, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(small.path, backend="pil")
    content = [{"type": "image"}, {"type": "text", "text": "How much is 42?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == "<|im_start|>User:<image>How much is 42?<end_of_utterance>\nAssistant:"
    processor.image_processor.do_image_splitting = False
    inputs = processor(text=prompt, images=[Image.new("RGB", (40, 30))], return_tensors="pt")
    assert int((inputs["input_ids"] == small.config["image_token_id"]).sum()) == 64
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_weights_are_marked_and_look_initialised(small: Checkpoint) -> None:
    assert small.random_weights
    assert small.licence == "none (random weights)"
    assert {info.dtype for info in small.tensors.values()} == {"BF16"}
    assert torch.allclose(small.tensor("model.text_model.norm.weight").float(), torch.ones(48), atol=0.2)
    assert torch.allclose(small.tensor("model.vision_model.post_layernorm.bias").float(), torch.zeros(32), atol=0.2)
    for name in ("model.text_model.layers.0.mlp.up_proj.weight", "model.connector.modality_projection.proj.weight"):
        values = small.tensor(name).float()
        assert values.std().item() == pytest.approx(1 / math.sqrt(values.shape[1]), rel=0.05)
    first, second = (small.tensor(f"model.text_model.layers.{i}.mlp.up_proj.weight").float() for i in (0, 1))
    assert abs(np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]) < 0.1


def test_no_two_tensors_are_alike(small: Checkpoint) -> None:
    """An exporter would store them once."""
    values = [small.tensor(name).float().numpy().tobytes() for name in small.tensors]
    assert len(set(values)) == len(values)


def test_the_same_seed_gives_the_same_checkpoint(small: Checkpoint, tmp_path: Path) -> None:
    write_shape(shrunk(), tmp_path / "again")
    assert open_checkpoint(tmp_path / "again").sha256() == small.sha256()
    write_shape(shrunk(), tmp_path / "other", seed=1)
    assert open_checkpoint(tmp_path / "other").sha256() != small.sha256()


def test_every_shape_has_a_data_file() -> None:
    assert sorted(SHAPES) == sorted(file.name.removesuffix(".json") for file in _data_files())


def _data_files() -> list[Traversable]:
    return [file for file in files("edge_mllm_export.shapes").iterdir() if file.name.endswith(".json")]


def test_a_new_shape_is_one_file_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Checkpoint
) -> None:
    (tmp_path / "small.json").write_text(json.dumps(asdict(shrunk())), encoding="utf-8")
    monkeypatch.setattr("edge_mllm_export.shapes.plan.FOLDER", tmp_path)
    monkeypatch.setattr("edge_mllm_export.shapes.plan.SHAPES", ("small",))
    checkpoint = open_shape("small", tmp_path)
    assert checkpoint.sha256() == small.sha256()
    assert checkpoint.id == "shape:small"
    assert checkpoint.random_weights


def test_an_unknown_shape_names_the_known_ones() -> None:
    with pytest.raises(SourceError, match=r"shape:smolvlm-1m.: no such shape; there are: shape:smolvlm-256m, shape:"):
        load_shape("smolvlm-1m")


@pytest.mark.parametrize("name", SHAPES)
def test_a_family_reads_the_plan(name: str, tmp_path: Path) -> None:
    plan = load_shape(name)
    tiny = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    sections = {"vision_config": plan.config["vision_config"] | tiny | {"num_attention_heads": 1}}
    if "text_config" in plan.config:
        sections["text_config"] = plan.config["text_config"] | tiny | heads
    else:  # the language model's fields stand beside the tower's section
        sections |= tiny | heads | {"hidden_size": 128}
    if "deepstack_visual_indexes" in sections["vision_config"]:
        given = sections["vision_config"]["deepstack_visual_indexes"]
        sections["vision_config"] |= {"deepstack_visual_indexes": [0][: len(given)], "out_hidden_size": 64}
        sections["text_config"]["num_hidden_layers"] = 2
    if "layer_types" in sections.get("text_config", {}):
        layers = sections["text_config"]["num_hidden_layers"]
        sections["text_config"]["layer_types"] = sections["text_config"]["layer_types"][-layers:]
    if "insert_layer_id" in plan.config:
        sections["insert_layer_id"] = 0
    write_shape(replace(plan, config=plan.config | sections), tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    family = find_family(checkpoint)
    declared_id = plan.config.get("image_token_id", plan.config.get("image_token_index"))
    if declared_id is not None:  # a layout without the field takes the tokenizer's token
        assert family.prompt(checkpoint).image_token_id == declared_id
    ends = plan.generation["eos_token_id"]
    assert set(ends if isinstance(ends, list) else [ends]) <= {*family.prompt(checkpoint).stop_token_ids}
    declared = {"image_seq_len", "image_seq_length", "num_image_tokens"} & plan.processor.keys()
    assert all(family.vision(checkpoint).tokens_per_tile == plan.processor[name] for name in declared)
    check_tensors(checkpoint, family)


@pytest.mark.slow
def test_the_largest_is_written_whole(tmp_path: Path) -> None:
    checkpoint = open_shape("smolvlm-2.2b", tmp_path)
    assert sum(info.nbytes for info in checkpoint.tensors.values()) == 2 * PUBLISHED["smolvlm-2.2b"]
