"""Bunny's and TinyLLaVA's layouts, rewritten without running their code: pixels, ids, tower, both engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_parity import GOLDEN_SIZES, Pair, seeded_sizes
from image_settings import picture
from PIL import Image
from tiny_llava import make_tiny_llava_phi
from tiny_llava_original import make_tiny_bunny, make_tiny_tinyllava
from tokenizers import Tokenizer

from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import TensorsError
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.llava import llava
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.source.source import resolve_source

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "llava_phi.json"
MAKERS: dict[str, Callable[..., Path]] = {"bunny": make_tiny_bunny, "tinyllava": make_tiny_tinyllava}
LAYOUTS = {**MAKERS, "bunny-phi": partial(make_tiny_bunny, phi=True)}
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@pytest.fixture(scope="module", params=list(LAYOUTS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LAYOUTS[request.param](tmp_path_factory.mktemp(request.param) / request.param)


@pytest.fixture(scope="module")
def rewritten(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_source(str(source), tmp_path_factory.mktemp("scratch"))


def test_everything_is_the_native_one(source: Path, rewritten: Checkpoint) -> None:
    native = open_checkpoint(source.with_name("native"))
    assert set(rewritten.tensors) == set(native.tensors)
    for name in native.tensors:
        assert np.array_equal(rewritten.tensor(name).numpy(), native.tensor(name).numpy()), name
    family = find_family(rewritten)
    assert family.name == ("llava_phi" if source.name == "bunny-phi" else "llava")
    check_tensors(rewritten, family)
    assert llava.vision_spec(rewritten) == llava.vision_spec(native)
    assert llava.decoder_spec(rewritten) == llava.decoder_spec(native)
    ours, theirs = family.text_config(rewritten), family.text_config(native)
    assert {k: v for k, v in ours.items() if "token_id" not in k} == {
        k: v for k, v in theirs.items() if "token_id" not in k
    }


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_pixels_are_those_of_the_original_processing(tmp_path: Path, name: str, aspect: str) -> None:
    """SigLIP's own processor, behind a square of the mean's colour where the configuration asks for one."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    checkpoint = resolve_source(str(MAKERS[name](tmp_path / name, aspect=aspect)), tmp_path)
    image, vision = llava.image_spec(checkpoint), llava.vision_spec(checkpoint)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    for size in [(1, 1), (33, 32), (640, 480), *seeded_sizes(21, longest=1200)]:
        rgb = picture(*size)
        shown = expand_to_square(Image.fromarray(rgb), (127, 127, 127)) if aspect == "pad" else Image.fromarray(rgb)
        expected = processor(shown, return_tensors="np")["pixel_values"]
        assert np.array_equal(cut_tiles(rgb, image, vision).pixels, expected), size


def expand_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Both repositories' expand2square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def original_ids(source: Path, prompt: str, tokens: int, image_token: int) -> list[int]:
    """The prompt cut at "<image>" and tokenised piece by piece, without a token for pictures."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    assert tokenizer.token_to_id("<image>") is None
    first, *rest = prompt.split("<image>")
    ids = tokenizer.encode(first).ids
    for piece in rest:
        ids += [image_token] * tokens + tokenizer.encode(piece).ids
    return ids


@pytest.mark.parametrize("question", ["What is it?", "Zwei Wörter\n", "  in spaces  "])
def test_prompts_are_the_original_conversation(source: Path, rewritten: Checkpoint, question: str) -> None:
    pair = Pair.of(rewritten)
    tokens = pair.spec.vision.tokens_per_tile
    tiny = source.name == "tinyllava"
    assert tokens == (15 if tiny else 16)  # TinyLLaVA takes the first of 16 patches for a class token
    found = pair.compare([picture(60, 40)], question)
    assert found.ids_equal and found.pixels_equal
    asked = question.strip() if tiny else question
    expected = original_ids(source, f"{SYSTEM} USER: <image>\n{asked} ASSISTANT:", tokens, 540)
    assert found.ids.tolist() == expected
    plain = pair.compare([], question)
    assert plain.ids.tolist() == original_ids(source, f"{SYSTEM} USER: {question} ASSISTANT:", tokens, 540)
    three = pair.compare([picture(30 + 40 * number, 50) for number in range(3)], question)
    assert three.ids_equal and three.pixels_equal


def test_a_second_turn_follows_the_end_of_the_first(rewritten: Checkpoint) -> None:
    template = ChatTemplate(rewritten.chat_template)
    said = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    text = template.render(messages, {})
    assert text == f"{SYSTEM} USER: One? ASSISTANT: Yes.<|endoftext|>USER: Two? ASSISTANT:"
    system = {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
    assert template.render([system, *messages[:1]], {}) == "Be short. USER: One? ASSISTANT:"


def test_tower_is_that_of_the_stored_tensors(source: Path, rewritten: Checkpoint) -> None:
    """transformers' SigLIP and a plain sequence of layers, loaded by the original names."""
    import torch
    from safetensors.torch import load_file
    from transformers import SiglipVisionConfig, SiglipVisionModel

    stored = load_file(source / "model.safetensors")
    sizes = json.loads((rewritten.path / "config.json").read_text(encoding="utf-8"))["vision_config"]
    siglip = SiglipVisionModel(SiglipVisionConfig(**sizes)).eval()
    tiny = source.name == "tinyllava"
    start = "vision_tower._vision_tower.vision_model." if tiny else "model.vision_tower.vision_tower.vision_model."
    inner = {n.removeprefix(start): v for n, v in stored.items() if n.startswith(start)}
    getattr(siglip, "vision_model", siglip).load_state_dict(inner)
    weights = [stored[("connector._connector." if tiny else "model.mm_projector.") + f"{n}.weight"] for n in (0, 2)]
    biases = [stored[("connector._connector." if tiny else "model.mm_projector.") + f"{n}.bias"] for n in (0, 2)]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states = siglip(pixels, output_hidden_states=True).hidden_states[-2][:, int(tiny) :]
        hidden = torch.nn.functional.gelu(states @ weights[0].T + biases[0])
        theirs = hidden @ weights[1].T + biases[1]
        ours = llava.FAMILY.build_tower(rewritten)(pixels)
    assert (ours - theirs).abs().max() < 1e-4


def test_a_tower_without_its_last_layer_is_read_to_its_end(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make_tiny_bunny(tmp_path / "bunny")
    whole = llava.FAMILY.build_tower(resolve_source(str(source), tmp_path))
    stored = load_file(source / "model.safetensors")
    kept = {name: value for name, value in stored.items() if ".encoder.layers.11." not in name}
    save_file(kept, source / "model.safetensors", {"format": "pt"})
    shorter = resolve_source(str(source), tmp_path)
    check_tensors(shorter, llava.FAMILY)
    import torch

    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(whole(pixels), llava.FAMILY.build_tower(shorter)(pixels))


def test_goldens(tmp_path: Path) -> None:
    """SigLIP's published tile, from the reference; the phone's runtime reads them too."""
    pair = Pair(make_tiny_llava_phi(tmp_path / "phi", tile=384, patch=64))
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))["results"][0]["rows"]
    assert [(row["width"], row["height"]) for row in rows] == GOLDEN_SIZES
    assert all(row["pixels_equal"] and row["ids_equal"] and row["tokens"] == 36 for row in rows)
    small = next(row for row in rows if (row["width"], row["height"]) == (380, 76))
    assert pair.row((380, 76)) == small


@pytest.fixture(scope="module")
def engines(rewritten: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(rewritten.path, tmp_path_factory.mktemp("bundle") / "original.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    """ggml looks GELU up in a table of half-precision numbers, so llama.cpp's logits of a Phi-2 are a little away."""
    text = json.loads((engines.source / "config.json").read_text(encoding="utf-8"))["text_config"]
    if (text["model_type"], engine) == ("phi", "gguf"):
        check_continuations(engines, engine, kl_max=5e-6, worst=0.05)
    else:
        check_continuations(engines, engine)


def test_four_bit_bundle_runs_and_is_verified(source: Path, tmp_path: Path) -> None:
    spec, answers = four_bits(source, tmp_path / "four.edge")
    assert all(answer.usage.image_tokens == spec.vision.tokens_per_tile for answer in answers)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("bunny", {"model_type": "bunny-stablelm"}, "LLaVA with stablelm.*lack StableLM's"),
        ("bunny", {"model_type": "bunny-minicpm"}, "LLaVA with minicpm.*lack"),
        ("bunny", {"model_type": "bunny-other"}, r"config\.json', model_type: is 'other'"),
        ("bunny", {"mm_projector_type": "ldp"}, r"config\.json', mm_projector_type: is 'ldp'"),
        ("bunny", {"mm_vision_tower": "eva"}, r"config\.json', mm_vision_tower: is 'eva'"),
        ("bunny", {"use_s2": True}, r"config\.json', use_s2"),
        ("bunny", {"image_aspect_ratio": "anyres"}, r"config\.json', image_aspect_ratio: is 'anyres'"),
        ("bunny", {"hidden_size": "x"}, r"config\.json', hidden_size: is 'x'"),
        ("bunny", {"vocab_size": 540}, r"config\.json', vocab_size: is 540: no row"),
        ("tinyllava", {"text_config": None}, r"config\.json', text_config"),
        ("tinyllava", {"text_config": {"model_type": "gemma"}}, "LLaVA with gemma.*lack"),
        ("tinyllava", {"vision_config": []}, r"config\.json', vision_config"),
        ("tinyllava", {"vision_config": {"model_type": "dinov2"}}, r"vision_config\.model_type: is 'dinov2'"),
        ("tinyllava", {"connector_type": "qformer"}, r"config\.json', connector_type: is 'qformer'"),
        ("tinyllava", {"vision_feature_layer": 7}, r"config\.json', vision_feature_layer: is 7"),
        ("tinyllava", {"vision_feature_select_strategy": "x"}, r"vision_feature_select_strategy: is 'x'"),
    ],
)
def test_what_cannot_be_rewritten_is_named(tmp_path: Path, name: str, change: dict[str, Any], says: str) -> None:
    source = MAKERS[name](tmp_path / name, **change)
    with pytest.raises(EdgeMLLMError, match=says) as caught:
        resolve_source(str(source), tmp_path)
    assert "\n" not in str(caught.value)


def fill_table(source: Path) -> None:
    """Take the free rows away, so that every row has a token, as in Bunny-v1_0-3B."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        if name in tensors:
            tensors[name] = tensors[name][:540].clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 540}), encoding="utf-8")


def test_a_full_table_gets_a_row_that_is_never_the_answer(tmp_path: Path) -> None:
    """A head with a bias can rule a token out; the others say what they said."""
    import torch

    source = make_tiny_bunny(tmp_path / "bunny", phi=True)
    whole = resolve_source(str(source), tmp_path)
    fill_table(source)
    grown = resolve_source(str(source), tmp_path)
    family = find_family(grown)
    check_tensors(grown, family)
    assert family.decoder(grown).n_vocab == 541
    assert family.prompt(grown).image_token_id == 540
    assert not grown.tensor("model.language_model.embed_tokens.weight")[540].any()
    kind = family.model_class() if family.model_class else None
    assert kind is not None
    ids = torch.tensor([[5, 300, 17, 88]])
    with torch.inference_mode():
        ours, theirs = (
            kind.from_pretrained(each.path, dtype=torch.float32).eval()(input_ids=ids).logits for each in (grown, whole)
        )
    assert torch.equal(ours[..., :540], theirs[..., :540])
    assert (ours[..., 540] == -10000).all()
    engines = Engines(grown.path, tmp_path / "grown.edge")
    check_continuations(engines, "onnx")
    check_continuations(engines, "gguf", kl_max=5e-6, worst=0.05)


def test_a_full_table_without_a_bias_is_refused(tmp_path: Path) -> None:
    source = make_tiny_bunny(tmp_path / "bunny")
    fill_table(source)
    with pytest.raises(EdgeMLLMError, match=r"config\.json', vocab_size: is 540: no row"):
        resolve_source(str(source), tmp_path)


def test_missing_parts_are_named(source: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    stored = load_file(source / "model.safetensors")
    without = {name: value for name, value in stored.items() if "vision_tower" not in name}
    save_file(without, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(EdgeMLLMError, match="holds no tower"):
        resolve_source(str(copy), tmp_path)
    save_file(
        stored
        | {
            "model.stranger": stored[
                "lm_head.weight" if "lm_head.weight" in stored else "language_model.lm_head.weight"
            ].clone()
        },
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(TensorsError, match="1 left over"):
        check_tensors(resolve_source(str(copy), tmp_path), llava.FAMILY)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(EdgeMLLMError, match=r"tokenizer\.json': is missing"):
        resolve_source(str(copy), tmp_path)
