"""Ferret-UI in the layout of apple/ml-ferret, rewritten without running its code: prompts, tensors, refusals."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest
from family_engines import four_bits
from family_parity import Pair
from image_settings import picture
from tiny_ferret_ui import make_tiny_ferret_original
from tokenizers import Tokenizer

from edge_mllm.errors import EdgeMLLMError
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.ferret_ui import family as ferret_ui
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.source.source import resolve_source

SYSTEM = (
    "A chat between a human and an AI that understands visuals. In images, [x, y] denotes points: top-left [0, 0], "
    "bottom-right [width-1, height-1]. Increasing x moves right; y moves down. Bounding box: [x1, y1, x2, y2]. "
    "Image size: 1000x1000. Follow instructions."
)
LAYOUTS = {"gemma": {}, "llama": {"llama": True}, "sentencepiece": {"sentencepiece": True}}


@pytest.fixture(scope="module", params=list(LAYOUTS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_ferret_original(tmp_path_factory.mktemp("tiny") / request.param, **LAYOUTS[request.param])


@pytest.fixture(scope="module")
def rewritten(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_source(str(source), tmp_path_factory.mktemp("scratch"))


def original_ids(source: Path, rewritten: Checkpoint, prompt: str, tokens: int) -> list[int]:
    """The prompt cut at "<image>", pieces tokenised one by one, begin tokens behind the first left out."""
    file = source / "tokenizer.json"
    document = json.loads((file if file.is_file() else rewritten.path / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in document["added_tokens"]:
        entry["content"] = entry["content"].replace("<image>", "<region_fea>")
    tokenizer = Tokenizer.from_str(json.dumps(document))
    assert tokenizer.token_to_id("<image>") is None
    begin = tokenizer.encode("").ids
    assert len(begin) == 1
    first, *rest = prompt.split("<image>")
    ids = tokenizer.encode(first).ids
    for piece in rest:
        ids += [540] * tokens + tokenizer.encode(piece).ids[1:]
    return ids


@pytest.mark.parametrize("question", ["What is it?", "Zwei Wörter\n", "  [10, 20, 30, 40]  "])
def test_prompts_are_the_original_conversation(source: Path, rewritten: Checkpoint, question: str) -> None:
    pair = Pair.of(rewritten)
    if source.name == "llama":
        head = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>"
        head += "<|start_header_id|>user<|end_header_id|>\n\n"
        tail = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    else:
        head, tail = "{}<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"
    found = pair.compare([picture(60, 40)], question)
    assert found.ids_equal and found.pixels_equal
    tokens = found.ours[0].tokens
    assert tokens == 16 * found.ours[0].tiles
    prompt = f"{head.format(SYSTEM)}<image>\n{question}{tail}"
    assert found.ids.tolist() == original_ids(source, rewritten, prompt, tokens)
    plain = pair.compare([], question)
    assert plain.ids.tolist() == original_ids(source, rewritten, f"{head.format(SYSTEM)}{question}{tail}", 0)


def test_a_second_turn_follows_the_end_of_the_first(rewritten: Checkpoint) -> None:
    said = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    text = ChatTemplate(rewritten.chat_template).render(messages, {})
    if "eot_id" in text:
        turn = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
        turns = [("system", SYSTEM), *said]
        begin, asks = "<|begin_of_text|>" * 2, "<|start_header_id|>assistant<|end_header_id|>\n\n"
        assert text == begin + "".join(turn.format(role, said) for role, said in turns) + asks
        return
    answer = "<start_of_turn>model\nYes.<end_of_turn>\n<eos>"
    assert text == (
        f"{SYSTEM}<start_of_turn>user\nOne?<end_of_turn>\n{answer}"
        "<start_of_turn>user\nTwo?<end_of_turn>\n<start_of_turn>model\n"
    )
    system = {"role": "system", "content": "Be short."}
    assert ChatTemplate(rewritten.chat_template).render([system, *messages[:1]], {}).startswith("Be short.<start")


def test_everything_but_the_regions_is_kept(source: Path, rewritten: Checkpoint) -> None:
    from safetensors.torch import load_file

    family = find_family(rewritten)
    assert family.name == "ferret_ui"
    check_tensors(rewritten, family)
    stored = load_file(source / "model.safetensors")
    tied = source.name != "llama"
    left_out = {name for name in stored if "region_geo_sampler" in name} | ({"lm_head.weight"} if tied else set())
    assert len(rewritten.tensors) == len(stored) - len(left_out)
    spec = family.decoder(rewritten)
    assert (spec.embedding_scale, spec.scales_pictures) == ((8.0, True) if tied else (1.0, False))
    assert family.text_config(rewritten)["tie_word_embeddings"] is tied


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_tiny_ferret_original(tmp_path / "ferret")
    with caplog.at_level(logging.WARNING):
        resolve_source(str(source), tmp_path)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("edge_mllm")] == [
        "2 tensors of the region sampler are left out; give a box as text, [x1, y1, x2, y2] from 0 to 1000"
    ]
    caplog.clear()
    _change_head(source)
    with caplog.at_level(logging.WARNING):
        rewritten = resolve_source(str(source), tmp_path)
    assert "lm_head.weight differs from the embedding table" in caplog.records[-1].getMessage()
    assert "lm_head.weight" not in rewritten.tensors


def _change_head(source: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, source / "model.safetensors", {"format": "pt"})


def test_tower_is_that_of_the_stored_tensors(source: Path, rewritten: Checkpoint) -> None:
    """transformers' CLIP and a plain sequence of layers, loaded by the original names."""
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    stored = load_file(source / "model.safetensors")
    sizes = json.loads((rewritten.path / "config.json").read_text(encoding="utf-8"))["vision_config"]
    clip = CLIPVisionModel(CLIPVisionConfig(**sizes)).eval()
    start = "model.vision_tower.vision_tower.vision_model."
    inner = {n.removeprefix(start): v for n, v in stored.items() if n.startswith(start)}
    getattr(clip, "vision_model", clip).load_state_dict(inner)
    weights = [stored[f"model.mm_projector.{n}.weight"] for n in (0, 2)]
    biases = [stored[f"model.mm_projector.{n}.bias"] for n in (0, 2)]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states = clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        hidden = torch.nn.functional.gelu(states @ weights[0].T + biases[0])
        theirs = hidden @ weights[1].T + biases[1]
        ours = ferret_ui.FAMILY.build_tower(rewritten)(pixels)
    assert (ours - theirs).abs().max() < 1e-4


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    """From the published layout to an answer."""
    source = make_tiny_ferret_original(tmp_path / "ferret")
    spec, answers = four_bits(source, tmp_path / "four.edge")
    assert "newline" not in spec.parts
    assert all(answer.usage.image_tokens == 16 * answer.images[0].tiles for answer in answers)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_aspect_ratio": "square_nocrop"}, "image_aspect_ratio: is 'square_nocrop', expected 'anyres'"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type: is 'spatial_unpad', expected 'spatial'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type: is 'flat'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type: is 'linear'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end: is True, expected False"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature"),
        ({"mm_vision_select_layer": 0}, "mm_vision_select_layer: is 0, expected -1 to -3"),
        ({"mm_vision_select_layer": "x"}, "mm_vision_select_layer"),
        ({"mm_vision_tower": "google/siglip-base-patch16-224"}, "mm_vision_tower: is 'google/siglip"),
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints: is None"),
        ({"image_grid_pinpoints": []}, "image_grid_pinpoints"),
        ({"image_grid_pinpoints": "nonsense"}, "image_grid_pinpoints: is 'nonsense', which is no list"),
        ({"image_grid_pinpoints": [[32, 33]]}, "whole tiles of 32 px"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": 540}, "the token <region_fea> is missing"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers: is '2', expected a whole number above 0"),
    ],
)
def test_what_is_not_the_published_models_is_refused_by_name(tmp_path: Path, change: dict, says: str) -> None:
    source = make_tiny_ferret_original(tmp_path / "ferret", **change)
    with pytest.raises(EdgeMLLMError) as caught:
        resolve_source(str(source), tmp_path)
    assert says in str(caught.value)


def test_pinpoints_may_be_text(tmp_path: Path) -> None:
    """As LLaVA's first code writes them."""
    points = "[(32, 64), (64, 32)]"
    source = make_tiny_ferret_original(tmp_path / "ferret", image_grid_pinpoints=points)
    checkpoint = resolve_source(str(source), tmp_path)
    expected = [[height, width] for width, height in ast.literal_eval(points)]
    assert checkpoint.config["image_grid_pinpoints"] == expected


def test_missing_parts_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make_tiny_ferret_original(tmp_path / "ferret")
    tensors = load_file(source / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".vision_tower." not in name}
    save_file(kept, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds no tower; the weights of openai/clip-vit-base-patch8-32 have"):
        resolve_source(str(source), tmp_path)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model.*is missing"):
        resolve_source(str(source), tmp_path)
