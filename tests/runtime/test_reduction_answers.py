"""Answers about reduced pictures: every position scheme on both engines, caches, chats, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_settings import pixels
from tiny_anyres import make_tiny_llava_onevision
from tiny_gemma3 import make_tiny_gemma3
from tiny_internvl import make_tiny_internvl
from tiny_qwen2_vl import make_tiny_qwen2_5_vl
from tiny_qwen3_vl import make_tiny_qwen3_vl
from typer.testing import CliRunner

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.budget import ImageBudget
from edge_mllm.cli.main import app
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.errors import ChatFileError, ContextOverflowError, SettingError
from edge_mllm.picture.reduction.areas import token_areas
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.picture.reduction.thinning import kept_tokens, thin_rows
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm_export import ExportOptions, export_bundle

QUESTION = "What is the total?"
METHODS = ("uniform", "random", "pool", "diverse", "diverse-tile", "query", "query-tile")
MAKERS = {
    "mrope": make_tiny_qwen2_5_vl,
    "rows for further layers": make_tiny_qwen3_vl,
    "bidirectional": make_tiny_gemma3,
    "stitched": make_tiny_llava_onevision,
    "thumbnail": make_tiny_internvl,
}
FIXED = {"max_new_tokens": 6, "ignore_eos": True}


@pytest.fixture(scope="module", params=["marked tiles", *MAKERS])
def bundle(request, tiny_bundle, tmp_path_factory) -> Path:
    if request.param not in MAKERS:
        return tiny_bundle
    root = tmp_path_factory.mktemp("reduced")
    checkpoint = MAKERS[request.param](root / "checkpoint")
    options = ExportOptions(format="both", quant="f32", vision="fp32", verify=False)
    export_bundle(str(checkpoint), root / "model.edge", options)
    return root / "model.edge"


def opened(path: Path, engine: str, **more: Any) -> edge_mllm.Model:
    return edge_mllm.load(path, engine=engine, threads=1, kv_type="f32" if engine == "gguf" else None, **more)


def by_hand(model: edge_mllm.Model, picture: np.ndarray, reduction: TokenReduction) -> tuple[np.ndarray, list[int]]:
    """Prompt ids and greedy tokens, from the whole prompt and the whole embeddings."""
    spec, rows, ids = model.spec, model.encode(picture), model.prompt_ids(QUESTION, [picture])
    plan = plan_tiles(picture.shape[1], picture.shape[0], spec.image.tiler)
    areas = token_areas(plan, spec.vision.tokens_per_tile)
    query = model.decoder.embed(model.reader.text_ids(QUESTION)) if reduction.needs_query else None
    kept = kept_tokens(reduction, areas, rows[:, : spec.decoder.n_embd], query)
    given = thin_rows(reduction, areas, rows, kept)
    places = np.flatnonzero(ids == spec.prompt.image_token_id)
    assert len(places) == len(rows)
    ours = np.delete(ids, np.setdiff1d(places, places[kept]))
    segments: list[list[Any]] = [[], []]
    done = start = 0
    visual = ours == spec.prompt.image_token_id
    last = int(np.flatnonzero(visual)[-1])
    for end in range(1, len(ours) + 1):
        if end < len(ours) and visual[end] == visual[start]:
            continue
        run = ours[start:end]
        if not visual[start]:
            part: Any = Tokens(run)
        elif plan.token_grid is None:
            part = Visual(given[done : done + len(run)])
        else:
            part = Visual(given[done : done + len(run)], plan.token_grid, kept)
        done += len(run) if visual[start] else 0
        segments[int(start > last)].append(part)
        start = end
    model.decoder.truncate(0)
    logits = [model.decoder.prefill(group) for group in segments][-1]
    tokens = [int(logits.argmax())]
    while len(tokens) < FIXED["max_new_tokens"]:
        tokens.append(int(model.decoder.step(tokens[-1]).argmax()))
    return ours, tokens


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_the_prompt_is_the_one_made_by_hand(bundle, engine):
    picture = pixels(1, 60, 100)
    with opened(bundle, engine) as model, opened(bundle, engine) as other:
        whole = model.generate(QUESTION, [picture], **FIXED)
        for method in METHODS:
            reduction = TokenReduction(method=method, ratio=0.4)
            ids, tokens = by_hand(other, picture, reduction)
            plan = model.plan(QUESTION, [picture], reduction=reduction)
            pieces = list(model.stream(QUESTION, [picture], reduction=reduction, **FIXED))
            answer = pieces[-1].answer
            assert [piece.token for piece in pieces] == tokens, method
            assert (plan.prompt_tokens, plan.image_tokens) == (len(ids), answer.usage.image_tokens)
            assert answer.usage.prompt_tokens == len(ids) < whole.usage.prompt_tokens
            assert answer.images[0].tokens == answer.usage.image_tokens == answer.reduction.tokens_after
            assert answer.reduction.tokens_before == whole.usage.image_tokens == plan.reduction.tokens_before
            assert (answer.reduction.asked, plan.reduction.seconds) == (reduction.text, None)
            assert answer.reduction.seconds > 0
            assert answer.images[0].source == "memory"  # the tower was not asked again


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_all_tokens_are_as_no_reduction(bundle, engine):
    picture = pixels(2, 60, 100)
    with opened(bundle, engine) as model:
        off = list(model.stream(QUESTION, [picture], **FIXED))
        for method in METHODS:
            on = list(model.stream(QUESTION, [picture], reduction=f"{method}:1", **FIXED))
            assert [piece.token for piece in on] == [piece.token for piece in off]
            assert on[-1].answer.usage.reused_tokens > 0  # the very cells of the answer without it
            assert on[-1].answer.reduction.tokens_after == off[-1].answer.usage.image_tokens


@pytest.fixture(params=["onnx", "gguf"])
def loading(tiny_bundle, request):
    return lambda **more: opened(tiny_bundle, request.param, check_hashes=False, **more)


def test_changing_reductions_never_share_cells(loading):
    picture, asked = pixels(3), [None, "uniform:1/2", "diverse:1/2", "random:1/2:1", "random:1/2:2", "query:1/2", None]
    with loading() as model:
        found = [model.generate(QUESTION, [picture], reduction=each, **FIXED) for each in [*asked, *asked]]
        again = model.generate("And the date?", [picture], reduction="diverse:1/2", **FIXED)
        third = model.generate("Who is it?", [picture], reduction="diverse:1/2", **FIXED)
    assert third.usage.reused_tokens > third.usage.image_tokens and third.timings.vision_s == 0
    for each, answer in zip([*asked, *asked, "diverse:1/2"], [*found, again], strict=True):
        with loading() as fresh:
            question = "And the date?" if answer is again else QUESTION
            assert fresh.generate(question, [picture], reduction=each, **FIXED).text == answer.text
    assert [answer.images[0].source for answer in found[1:6]] == ["memory"] * 5


def test_another_question_takes_other_tokens(loading):
    picture, questions = pixels(4), ("What is the total?", "Read the 7 letters")
    with loading() as model:
        found = [model.generate(each, [picture], reduction="query:1/4", **FIXED) for each in (*questions, *questions)]
    assert all(answer.usage.reused_tokens == 0 for answer in found)
    for question, answer in zip((*questions, *questions), found, strict=True):
        with loading() as fresh:
            assert fresh.generate(question, [picture], reduction="query:1/4", **FIXED).text == answer.text


@pytest.mark.parametrize("text", ["uniform:1/2", "diverse:1/4", "query:1/4", "pool:1/4", "blank"])
def test_a_chat_keeps_what_it_chose(loading, tmp_path, text):
    request = GenerateOptions(max_new_tokens=6, ignore_eos=True, reduction=text)
    page = np.full((60, 90, 3), 255, np.uint8)
    page[:20, :20] = pixels(5, 20, 20)
    with loading() as model:
        chat = model.chat()
        chat.ask(QUESTION, [page], **request)
        chat.save(tmp_path / "chat")
        second = chat.ask("And the date?", [pixels(6)], max_new_tokens=6, ignore_eos=True)
        third = chat.ask("Which one?", **request)
    assert second.usage.reused_tokens > second.reduction.tokens_after
    assert third.usage.reused_tokens > third.usage.image_tokens == sum(image.tokens for image in third.images)
    assert third.reduction.asked == TokenReduction.parse(text).text
    with loading() as model:
        chat = model.load_chat(tmp_path / "chat")
        again = chat.ask("And the date?", [pixels(6)], max_new_tokens=6, ignore_eos=True)
        assert (again.text, again.usage.reused_tokens) == (second.text, second.usage.reused_tokens)
        assert chat.ask("Which one?", **request).text == third.text


def test_a_saved_chat_with_other_tokens_is_refused(loading, tmp_path, monkeypatch):
    request = GenerateOptions(max_new_tokens=3, reduction="diverse:1/4")
    with loading() as model:
        chat = model.chat()
        chat.ask(QUESTION, [pixels(5)], **request)
        for damaged in (chat._pictures[0].kept[1:], chat._pictures[0].kept[::-1], chat._pictures[0].kept + 1000):
            monkeypatch.setattr(chat._pictures[0], "kept", damaged.astype(np.int64))
            file = tmp_path / "chat"
            from edge_mllm.session.chat_file import ChatFile, write_chat_file
            from edge_mllm.session.chat_state import ChatState, pack_chat

            state = model.decoder.state()
            head, arrays = pack_chat(ChatState(chat._messages, chat._pictures, model.pipeline._cells.keys, state))
            write_chat_file(file, ChatFile(model.binding(), head, arrays))
            with pytest.raises(ChatFileError, match="tokens that were kept"):
                model.load_chat(file)


def test_what_does_not_fit_whole_may_fit_reduced(loading):
    with loading(n_ctx=60) as small:
        with pytest.raises(ContextOverflowError, match="52 of them"):
            small.generate(QUESTION, [pixels(0)])
        with pytest.raises(ContextOverflowError, match="39 of them"):
            small.generate(QUESTION * 4, [pixels(0)], reduction="uniform:3/4")
    with loading(n_ctx=110) as small:
        answer = small.generate(QUESTION, [pixels(0)], reduction="uniform:1/4", max_new_tokens=2)
        assert answer.usage.image_tokens == 13


def test_prepared_pictures_and_low_memory(loading):
    page = np.full((60, 90, 3), 255, np.uint8)
    page[:20, :20] = pixels(5, 20, 20)
    for text in ("blank", "query:1/2"):
        with loading(low_memory=True, cache_bytes=0) as model, loading() as plain:
            model.prepare(page, reduction=text).wait()
            answer = model.generate(QUESTION, [page], reduction=text, **FIXED)
            assert answer.images[0].source == "prepared"
            assert answer.text == plain.generate(QUESTION, [page], reduction=text, **FIXED).text


def test_blank_tiles_leave_the_prompt_with_their_marks(loading):
    page = np.full((96, 96, 3), 255, np.uint8)
    page[:32, :32] = pixels(7, 32, 32)
    with loading() as model:
        whole = model.generate(QUESTION, [page], **FIXED)
        pieces = list(model.stream(QUESTION, [page], reduction="blank", **FIXED))
        answer = pieces[-1].answer
        (part,) = model.reader.pictures([page], ImageBudget(reduction=TokenReduction.parse("blank")))
        rows, every = model.pipeline.decoder_rows(part), model.encode(page)
        stays = part.plan.places
        per_tile = model.spec.vision.tokens_per_tile
    assert 1 < answer.images[0].tiles == len(stays) < whole.images[0].tiles
    assert answer.reduction.tokens_before == whole.usage.image_tokens
    assert answer.usage.image_tokens == len(stays) * per_tile
    np.testing.assert_array_equal(rows, every.reshape(-1, per_tile, every.shape[1])[stays].reshape(rows.shape))
    assert whole.usage.prompt_tokens - answer.usage.prompt_tokens > answer.reduction.tokens_before - len(rows)


def test_the_command_line_says_what_was_done(tiny_bundle, tmp_path):
    from PIL import Image

    Image.fromarray(pixels(8)).save(tmp_path / "a.png")

    def call(*more):
        words = ["-m", tiny_bundle, "-i", tmp_path / "a.png", "--threads", 1, "--max-new-tokens", 3, *more]
        done = CliRunner().invoke(app, ["run", *map(str, words), "Hi"])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = call("--json", "--image-reduction", "diverse:1/4")
    document = json.loads(out)
    assert code == 0 and document["usage"]["image_tokens"] == 13 == document["images"][0]["tokens"]
    assert document["reduction"].pop("seconds") > 0
    assert document["reduction"] == {"asked": "diverse:0.25", "tokens_before": 52, "tokens_after": 13}
    assert "reduction" not in json.loads(call("--json")[1])
    assert "13 image tokens (13 tiles) of 52 by diverse:0.25" in call("--image-reduction", "diverse:1/4")[2]
    code, _, error = call("--image-reduction", "best:1/4")
    assert code == 1 and "cannot read the image reduction" in error and "\n" not in error.strip()


def test_models_that_cannot_say_so(bundle):
    with opened(bundle, "onnx") as model:
        tiles = model.spec.vision.patches is None and not getattr(model.spec.image.tiler, "stitch", None)
        if tiles:
            assert model.plan(QUESTION, [pixels(1)], reduction="blank").reduction.asked == "blank:8"
        else:
            with pytest.raises(SettingError, match="leaves out tiles, but"):
                model.plan(QUESTION, [pixels(1)], reduction="blank")
