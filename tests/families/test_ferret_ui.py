"""Ferret-UI: grids, stretched tiles, ids, one map of tokens, tower and both engines, from the published layout."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower
from family_parity import GOLDEN_SIZES, Pair, seeded_sizes
from image_settings import picture
from PIL import Image
from tiny_anyres import NEXT_GRIDS
from tiny_ferret_ui import PAPER_GRIDS, make_tiny_ferret_original, make_tiny_ferret_ui
from tokenizers import Tokenizer

import edge_mllm
from edge_mllm.chat_template import ChatTemplate
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.stitching import join_tiles
from edge_mllm.tile_plan import fit_tiler, low_detail, plan_tiles
from edge_mllm.tilers import BestFitGrid, Stitch
from edge_mllm.tiling import cut_tiles
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import ferret_ui, find_family
from edge_mllm_export.inventory import check_tensors
from edge_mllm_export.probes import draw_picture
from edge_mllm_export.source import resolve_source

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ferret_ui.json"
PUBLISHED = BestFitGrid(tile=336, grids=NEXT_GRIDS, fit="stretch", stitch=Stitch(plain=True))
HALVES = BestFitGrid(tile=336, grids=PAPER_GRIDS, fit="stretch", stitch=Stitch(plain=True))
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_ferret_ui(tmp_path_factory.mktemp("tiny") / "ferret336", tile=336, patch=56))


@pytest.mark.parametrize("size", [(1080, 2400), (750, 1334), (2400, 1080), (1334, 750), (5, 900), (640, 480)])
def test_the_papers_halves(size: tuple[int, int]) -> None:
    """A standing screen is cut into upper and lower half, a lying one into left and right, the whole comes first."""
    plan = plan_tiles(*size, HALVES)
    standing = size[1] > size[0]
    assert (plan.rows, plan.cols) == ((2, 1) if standing else (1, 2))
    assert plan.global_first and plan.count == 3
    assert plan.tokens(576) == 1728


def test_grids_equal_the_reference() -> None:
    from transformers.image_processing_utils import select_best_resolution

    points = [[rows * 336, cols * 336] for rows, cols in NEXT_GRIDS]
    for width in (1, 5, 100, 335, 336, 337, 400, 672, 673, 999, 4000):
        for height in (1, 7, 112, 224, 336, 504, 672, 700, 1008, 2016, 3000):
            plan = plan_tiles(width, height, PUBLISHED)
            assert (plan.rows * 336, plan.cols * 336) == select_best_resolution((height, width), points)
            assert plan.tokens(576) == 576 * (1 + plan.rows * plan.cols)


def test_fewer_tiles_on_demand() -> None:
    for most in range(1, 6):
        plan = plan_tiles(1080, 2400, fit_tiler(PUBLISHED, 1080, 2400, most))
        assert plan.count <= most
        assert plan.tokens(576) == 576 * plan.count
    assert plan_tiles(1080, 2400, low_detail(PUBLISHED, 1080, 2400)).count == 1


def test_tokens_follow_the_rows_of_the_screen() -> None:
    """Numbers that say where on the screen a token lies: read row by row they are in order, behind the whole's."""
    plan = plan_tiles(700, 690, PUBLISHED)
    assert (plan.rows, plan.cols) == (2, 2)
    screen = np.arange(36, dtype=np.float32).reshape(6, 6)
    parts = [screen[top : top + 3, left : left + 3].ravel() for top in (0, 3) for left in (0, 3)]
    tiles = np.stack([np.full(9, -1, np.float32), *parts])[..., None]
    assert join_tiles(tiles, plan, None)[:, 0].tolist() == [-1] * 9 + list(range(36))
    alone = plan_tiles(700, 690, low_detail(PUBLISHED, 700, 690))
    assert np.array_equal(join_tiles(tiles[:1], alone, None), tiles[0])


def test_the_references_map_is_ours() -> None:
    import torch

    from edge_mllm_export.families.ferret_ui_model import one_map

    values = np.random.default_rng(0)
    for width, height in [(1, 900), (900, 1), (336, 672), (50, 49), *seeded_sizes(60)]:
        plan = plan_tiles(width, height, PUBLISHED)
        tiles = values.normal(size=(plan.count, 16, 5)).astype(np.float32)
        theirs = one_map(torch.from_numpy(tiles), plan.rows, plan.cols).numpy()
        assert np.array_equal(join_tiles(tiles, plan, None), theirs)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    for size in [(1, 1), (640, 480), *seeded_sizes(22, longest=1200)]:
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row


@pytest.mark.parametrize("grids", [NEXT_GRIDS, PAPER_GRIDS], ids=["published", "paper"])
def test_pixels_from_transformers_parts(tmp_path: Path, grids: tuple[tuple[int, int], ...]) -> None:
    """The original's steps once more: choose widths and heights, stretch, cut, and let CLIP's processor see each."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    checkpoint = open_checkpoint(make_tiny_ferret_ui(tmp_path / "ferret", tile=336, patch=56, grids=grids))
    clip = CLIPImageProcessorPil(size={"height": 336, "width": 336}, do_center_crop=False)
    for size in [(750, 1334), (33, 32), *seeded_sizes(6, longest=1200)]:
        rgb = picture(*size)
        screen = Image.fromarray(rgb)
        width, height = best_resolution(size, [(cols * 336, rows * 336) for rows, cols in grids])
        large = screen.resize((width, height))
        boxes = [(x, y, x + 336, y + 336) for y in range(0, height, 336) for x in range(0, width, 336)]
        shown = [screen.resize((336, 336)), *(large.crop(box) for box in boxes)]
        expected = np.concatenate([clip(tile, return_tensors="np")["pixel_values"] for tile in shown])
        ours = cut_tiles(rgb, ferret_ui.image_spec(checkpoint), ferret_ui.vision_spec(checkpoint)).pixels
        assert np.array_equal(ours, expected), size


def best_resolution(size: tuple[int, int], points: list[tuple[int, int]]) -> tuple[int, int]:
    """The width and height that keep most of the picture's pixels, of equals the one that wastes least."""

    def kept(point: tuple[int, int]) -> int:
        scale = min(point[0] / size[0], point[1] / size[1])
        return min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])

    return max(points, key=lambda point: (kept(point), -point[0] * point[1]))


def test_goldens(pair: Pair) -> None:
    """From the reference; the phone's runtime reads them too."""
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))["results"][0]["rows"]
    assert [(row["width"], row["height"]) for row in rows] == GOLDEN_SIZES
    for row in rows:
        plan = plan_tiles(row["width"], row["height"], PUBLISHED)
        assert ([plan.rows, plan.cols], plan.count) == (row["grid"], row["tiles"])
        assert plan.tokens(pair.spec.vision.tokens_per_tile) == row["tokens"]
        assert row["pixels_equal"] and row["ids_equal"]
    small = next(row for row in rows if (row["width"], row["height"]) == (380, 76))
    assert pair.row((380, 76)) == small


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    rgbs = [picture(30 + 40 * number, 50) for number in range(count)]
    found = pair.compare(rgbs, "Which is larger? <end_of_turn> café [10, 20, 900, 950]")
    assert found.ids_equal and found.pixels_equal
    assert (found.ids == pair.spec.prompt.image_token_id).any() == bool(count)


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
    pair = Pair(rewritten.path)
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
        ours = ferret_ui.build_tower(rewritten)(pixels)
    assert (ours - theirs).abs().max() < 1e-4


def test_the_reference_gemma_scales_all_of_its_input(rewritten: Checkpoint) -> None:
    """Today's GemmaModel on rows that are scaled before, pictures among them, as transformers 4.39 did inside."""
    import torch

    text = json.loads((rewritten.path / "config.json").read_text(encoding="utf-8"))["text_config"]
    if text["model_type"] != "gemma":
        pytest.skip("a Llama scales nothing")
    from transformers import GemmaModel

    model = ferret_ui.model_class().from_pretrained(rewritten.path, dtype=torch.float32).eval()
    inner = model.model.language_model
    plain = GemmaModel(inner.config).eval()
    plain.load_state_dict(inner.state_dict())
    rows = torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 200, 5]])
    with torch.inference_mode():
        assert torch.equal(inner(inputs_embeds=rows)[0], plain(inputs_embeds=rows * 8.0)[0])
        assert torch.equal(inner(input_ids=ids)[0], plain(input_ids=ids)[0])
        assert torch.equal(model.lm_head.weight, inner.embed_tokens.weight)


@pytest.fixture(scope="module")
def engines(rewritten: Checkpoint, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    if source.name == "sentencepiece":
        pytest.skip("the weights are those of the Gemma with a tokenizer.json")
    return Engines(rewritten.path, tmp_path_factory.mktemp("bundle") / "ferret.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    """ggml looks GELU up in a table of half-precision numbers, so llama.cpp's logits of a Gemma are a little away."""
    text = json.loads((engines.source / "config.json").read_text(encoding="utf-8"))["text_config"]
    if (text["model_type"], engine) == ("gemma", "gguf"):
        check_continuations(engines, engine, kl_max=5e-6, worst=0.05)
    else:
        check_continuations(engines, engine)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_rows_of_embeddings_stand_for_tokens(engines: Engines, engine: str) -> None:
    """Also where the decoder scales rows of pictures as it scales tokens."""
    from edge_mllm.decoders.protocol import Tokens, Visual

    decoder = engines.candidate.decoder(engine, n_ctx=256, exact=True)
    ids = np.arange(3, 40)
    expected = decoder.prefill([Tokens(ids)])
    decoder.truncate(0)
    found = decoder.prefill([Visual(decoder.embed(ids[:-1])), Tokens(ids[-1:])])
    decoder.close()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    """From the published layout to an answer."""
    source = make_tiny_ferret_original(tmp_path / "ferret")
    out = tmp_path / "four.edge"
    spec = export_bundle(str(source), out, ExportOptions(format="onnx", allow_loss=True))
    assert spec.verification["pixels"]["max_abs_difference"] == 0
    assert spec.verification["token_ids"]["equal"] == spec.verification["token_ids"]["prompts"]
    assert spec.verification["vision"]["cosine_mean"] > 0.99
    assert "newline" not in spec.parts
    with edge_mllm.load(out, threads=1) as model:
        answer = model.generate("What is it?", images=[draw_picture(70, 33, seed=0)], max_new_tokens=4)
    assert answer.usage.image_tokens == 16 * answer.images[0].tiles
    assert answer.usage.completion_tokens >= 1


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
