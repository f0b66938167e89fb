"""Prompts: ids as transformers gives them, pictures only where pictures were given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundle_specs import LAYOUT, TINY, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from image_settings import chat, picture, reference_inputs, reference_processor
from tiny_models import SMOLVLM_TEMPLATE

from edge_mllm.bundle.spec import TileLayout
from edge_mllm.errors import PromptError
from edge_mllm.picture.tile_plan import fit_tiler, plan_tiles
from edge_mllm.prompt.build import PromptIds, Slot, build_prompt, picture_text
from edge_mllm.prompt.template import ChatTemplate

SIZES = [(60, 40), (33, 200), (128, 128)]


@pytest.fixture(scope="module")
def parts(tiny_smolvlm: Path) -> SimpleNamespace:
    from tokenizers import Tokenizer

    return SimpleNamespace(
        spec=make_spec(tiny_smolvlm),
        tokenizer=Tokenizer.from_file(str(tiny_smolvlm / "tokenizer.json")),
        template=ChatTemplate(SMOLVLM_TEMPLATE),
        reference=reference_processor(TINY, tiny_smolvlm),
    )


def build(parts: SimpleNamespace, messages: list, sizes: list[tuple[int, int]]) -> PromptIds:
    plans = [plan_tiles(*size, parts.spec.image.tiler) for size in sizes]
    return build_prompt(messages, plans, parts.spec, parts.tokenizer, parts.template)


@pytest.mark.parametrize("pictures", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "question", ["What is the total?", "", "Zwei Zeilen:\n\n  \U0001f600 3.14 été", "<|im_end|> a"]
)
def test_ids_equal_the_reference(parts: SimpleNamespace, pictures: int, question: str) -> None:
    messages = chat(question, pictures)
    rgbs = [picture(*size) for size in SIZES[:pictures]]
    expected = reference_inputs(parts.reference, rgbs, messages)["input_ids"][0]
    ours = build(parts, messages, SIZES[:pictures])
    assert ours.ids.dtype == np.int64
    assert ours.ids.tolist() == expected.tolist()
    assert ours.image_tokens == (expected == parts.spec.prompt.image_token_id).sum()


def test_a_conversation_equals_the_reference(parts: SimpleNamespace) -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *chat("What is this?", 2),
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image"}]},
    ]
    expected = reference_inputs(parts.reference, [picture(*size) for size in SIZES], messages)["input_ids"][0]
    assert build(parts, messages, SIZES).ids.tolist() == expected.tolist()


def test_a_picture_of_one_tile_equals_the_reference_without_splitting(
    parts: SimpleNamespace, tiny_smolvlm: Path
) -> None:
    from image_settings import Settings

    processor = reference_processor(Settings("tiny", 128, 32, 4), tiny_smolvlm)
    processor.image_processor.do_image_splitting = False
    expected = reference_inputs(processor, [picture(60, 40)], chat("Well?", 1))["input_ids"][0]
    plan = plan_tiles(60, 40, fit_tiler(parts.spec.image.tiler, 60, 40, 1))
    ours = build_prompt(chat("Well?", 1), [plan], parts.spec, parts.tokenizer, parts.template)
    assert ours.ids.tolist() == expected.tolist()
    assert ours.image_tokens == 4


def test_slots_cover_each_pictures_tokens(parts: SimpleNamespace) -> None:
    ours = build(parts, chat("Compare.", 3), SIZES)
    image = ours.ids == parts.spec.prompt.image_token_id
    plans = [plan_tiles(*size, parts.spec.image.tiler) for size in SIZES]
    for slot, plan in zip(ours.slots, plans, strict=True):
        place = image[slot.start : slot.start + slot.length]
        assert slot.visual == place.sum() == plan.count * 4
        assert place[0]
        assert place[-1]
    assert image.sum() == ours.image_tokens == sum(slot.visual for slot in ours.slots)
    ends = [slot.start + slot.length for slot in ours.slots]
    assert all(end < following.start for end, following in zip(ends, ours.slots[1:], strict=False))
    assert build(parts, chat("Hello.", 0), []).slots == ()


def test_the_text_around_tiles() -> None:
    plan = plan_tiles(60, 40, TINY.image.tiler)
    spec = SimpleNamespace(layout=LAYOUT, image_token="<image>")
    text = picture_text(plan, spec, 1)
    assert (plan.rows, plan.cols) == (3, 4)
    assert text.startswith("<fake_token_around_image><row_1_col_1><image><fake_token_around_image><row_1_col_2><image>")
    assert text.endswith(
        "<row_3_col_4><image>\n\n<fake_token_around_image><global-img><image><fake_token_around_image>"
    )
    assert text.count("\n") == 4
    single = dataclasses.replace(plan, crops=plan.crops[:1], rows=1, cols=1, global_steps=None)
    assert (
        picture_text(single, spec, 2) == "<fake_token_around_image><global-img><image><image><fake_token_around_image>"
    )


def test_every_field_of_a_layout_has_its_place() -> None:
    names = [field.name for field in dataclasses.fields(TileLayout)]
    layout = TileLayout(
        **{name: f"[{name}]" for name in names if name != "before_tile"}, before_tile="[{index}:{row},{col}]"
    )
    spec = SimpleNamespace(layout=layout, image_token="*")
    plan = plan_tiles(64, 64, TINY.image.tiler)
    plan = dataclasses.replace(plan, rows=1, cols=2, crops=plan.crops[:2])
    row = "[1:1,1]*[after_tile][2:1,2]*[after_tile][after_row]"
    whole = "[before_global]*[after_global]"
    assert picture_text(plan, spec, 1) == f"[before_image]{row}{whole}[after_image]"
    first = dataclasses.replace(plan, global_first=True)
    assert picture_text(first, spec, 1) == f"[before_image]{whole}{row}[after_image]"
    without = dataclasses.replace(plan, global_steps=None)
    assert picture_text(without, spec, 1) == f"[before_image]{row}[after_image]"
    single = dataclasses.replace(without, cols=1, crops=plan.crops[:1])
    assert picture_text(single, spec, 1) == "[before_image][before_single]*[after_single][after_image]"


@pytest.mark.parametrize("text", ["<image>", "Look: <image>!", "a<image><image>"])
def test_a_mark_in_a_text_is_text_and_claims_no_pictures_place(parts: SimpleNamespace, text: str) -> None:
    """By whomever it was said; all other ids are those of the same conversation with a word that is no mark."""
    answer = [*chat("Hi", 1), {"role": "assistant", "content": [{"type": "text", "text": text}]}, *chat("And?", 0)]
    for messages in (chat(text, 0), chat(text, 1), answer):
        pictures = sum(item["type"] == "image" for each in messages for item in each["content"])
        ours = build(parts, messages, SIZES[:pictures])
        assert len(ours.slots) == pictures
        assert (ours.ids == parts.spec.prompt.image_token_id).sum() == ours.image_tokens
        assert parts.tokenizer.decode(ours.ids.tolist()).count(text) == 1
        assert text in ours.text
        shown = [token for token in ours.ids.tolist() if token != parts.spec.prompt.image_token_id]
        twin = build(parts, json.loads(json.dumps(messages).replace("<image>", "(image)")), SIZES[:pictures]).ids
        expected = parts.tokenizer.decode([token for token in twin.tolist() if token != ours.image_token_id])
        assert parts.tokenizer.decode(shown).replace("<image>", "(image)") == expected


def test_text_in_pieces_cannot_claim_a_pictures_place(parts: SimpleNamespace) -> None:
    items = [{"type": "text", "text": "<ima"}, {"type": "text", "text": "ge>"}]
    with pytest.raises(PromptError, match="made 1 places for 0 pictures"):
        build(parts, [{"role": "user", "content": items}], [])
    with pytest.raises(PromptError, match="places for 0 pictures, 1 were given"):
        build(parts, [{"role": "user", "content": items}], SIZES[:1])
    with pytest.raises(PromptError, match="made 2 places for 1 pictures"):
        build(parts, [{"role": "user", "content": [{"type": "image"}, *items]}], SIZES[:1])
    assert build(parts, [{"role": "<image>", "content": "Hi"}], []).image_tokens == 0


def test_a_placeholder_of_its_own_is_text_in_text_too(parts: SimpleNamespace) -> None:
    prompt = dataclasses.replace(parts.spec.prompt, placeholder="[[picture]]")
    spec = dataclasses.replace(parts.spec, prompt=prompt)
    template = ChatTemplate(SMOLVLM_TEMPLATE.replace("<image>", "[[picture]]"))
    plan = plan_tiles(60, 40, spec.image.tiler)
    expected = build(parts, chat("Well?", 1), [(60, 40)])
    assert build_prompt(chat("Well?", 1), [plan], spec, parts.tokenizer, template).ids.tolist() == expected.ids.tolist()
    for text in ("[[picture]]", "<image>", "[[picture]<image>]"):
        found = build_prompt(chat(text, 1), [plan], spec, parts.tokenizer, template)
        assert found.image_tokens == expected.image_tokens
        assert text in parts.tokenizer.decode(found.ids.tolist())


def test_numbers_of_pictures_must_agree(parts: SimpleNamespace) -> None:
    with pytest.raises(PromptError, match="places for 1 pictures, 0 were given"):
        build(parts, chat("Well?", 1), [])
    with pytest.raises(PromptError, match="places for 0 pictures, 2 were given"):
        build(parts, chat("Well?", 0), SIZES[:2])
    deaf = ChatTemplate("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    plan = plan_tiles(8, 8, parts.spec.image.tiler)
    with pytest.raises(PromptError, match="made 0 places for 1 pictures"):
        build_prompt(chat("Well?", 1), [plan], parts.spec, parts.tokenizer, deaf)


def test_text_that_is_normalised_to_the_image_token_is_text(parts: SimpleNamespace) -> None:
    from tokenizers import Tokenizer

    document = json.loads(parts.tokenizer.to_str())
    document["normalizer"] = {"type": "NFKC"}
    for token in document["added_tokens"]:
        token["normalized"] = token["content"] == "<image>"
    folding = Tokenizer.from_str(json.dumps(document))
    assert build_prompt(chat("\uff1cimage\uff1e", 0), [], parts.spec, folding, parts.template).image_tokens == 0


def test_a_tokenizer_that_makes_the_image_token_of_others_says_so(parts: SimpleNamespace) -> None:
    from tokenizers import Tokenizer

    words = {"<unk>": 0, "<": 1, "image>": 2, "<image>": 3}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "<image>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "model": {"type": "BPE", "vocab": words, "merges": [["<", "image>"]], "unk_token": "<unk>"},
    }  # fmt: skip
    prompt = dataclasses.replace(parts.spec.prompt, image_token_id=3, bos_token_id=None, special_tokens={})
    spec = dataclasses.replace(parts.spec, prompt=prompt)
    with pytest.raises(PromptError, match="contains '<image>', which this model's tokenizer cannot read as text"):
        build_prompt(chat("<image>", 0), [], spec, Tokenizer.from_str(json.dumps(document)), parts.template)


@pytest.mark.parametrize("source", ["<|im_start|>{{ messages[0].content }}", "{{ messages[0].content }}"])
def test_the_begin_token_comes_once(parts: SimpleNamespace, source: str) -> None:
    begin = parts.tokenizer.token_to_id("<|im_start|>")
    prompt = dataclasses.replace(parts.spec.prompt, bos_token_id=begin)
    spec = dataclasses.replace(parts.spec, prompt=prompt)
    messages = [{"role": "user", "content": "Hello"}]
    ids = build_prompt(messages, [], spec, parts.tokenizer, ChatTemplate(source)).ids.tolist()
    assert ids == [begin, *parts.tokenizer.encode("Hello").ids]


def test_messages_that_are_none(parts: SimpleNamespace) -> None:
    for messages in ([], [{"role": "user"}], [{"content": "Hi"}], [{"role": "user", "content": None}]):
        with pytest.raises(PromptError):
            build(parts, messages, [])
    with pytest.raises(PromptError, match="lone surrogate"):
        build(parts, chat("\ud800", 0), [])


@given(
    text=st.text(max_size=60) | st.sampled_from(["<image>", " <image>\n", "a<image>b<image>"]),
    pictures=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_any_text_gives_exactly_the_pictures_tokens(parts: SimpleNamespace, text: str, pictures: int) -> None:
    try:
        ours = build(parts, chat(text, pictures), SIZES[:pictures])
    except PromptError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in text)
    else:
        assert (ours.ids == parts.spec.prompt.image_token_id).sum() == ours.image_tokens
        assert all(isinstance(slot, Slot) for slot in ours.slots)
        assert len(ours.slots) == pictures
