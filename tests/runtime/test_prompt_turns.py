"""A chat template as pieces: found where it can be, refused where it writes something else."""

from __future__ import annotations

import pytest

from edge_mllm.bundle.spec import PromptSpec, TileLayout
from edge_mllm.bundle.turns import UserStart
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm.prompt.turns import TurnsError, find_turns, render_turns
from edge_mllm.session.files import open_bundle, starter_bundle

_PROMPT = PromptSpec(
    image_token="<image>", image_token_id=1, placeholder="<image>", layout=TileLayout(), stop_token_ids=(2,)
)
_LOOP = "{% for m in messages %}[{{ m.role }}]{% for c in m.content %}"
_ITEM = "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}"
_END = "{% endfor %}|{% endfor %}[assistant]"


def test_the_starters_turns_are_those_of_its_template() -> None:
    bundle = open_bundle(starter_bundle())
    found = find_turns(ChatTemplate(bundle.chat_template()), bundle.spec.prompt)
    assert bundle.spec.prompt.turns == found
    assert found.first_pictures == UserStart(before="<|im_start|>User:", picture="<image>")
    assert found.ask == "<end_of_utterance>\nAssistant:"


def test_pieces_and_trimming() -> None:
    turns = find_turns(ChatTemplate(_LOOP + _ITEM.replace("c.text", "c.text | trim") + _END), _PROMPT)
    assert (turns.trims_user, turns.trims_reply, turns.trims_system) == (True, True, True)
    assert turns.later_pictures == UserStart(before="|[user]", picture="<image>\n")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " x "}]}]
    assert render_turns(turns, messages) == "[user]<image>\nx|[assistant]"


def test_a_system_message_that_is_not_taken() -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
    turns = find_turns(ChatTemplate(refuses + _LOOP + _ITEM + _END), _PROMPT)
    assert turns.system is None and turns.system_pictures is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (_LOOP + _ITEM.replace("<image>", "{{ loop.index }}<image>") + _END, "not written one like the other"),
        (_LOOP + _ITEM.replace("{{ c.text }}", "{{ c.text }}{{ c.text }}") + _END, "is written 2 times"),
        (_LOOP + _ITEM.replace("{{ c.text }}", "{{ c.text | upper }}") + _END, "is written 0 times"),
        (_LOOP + _ITEM + "{{ messages | length }}" + _END, "they differ for"),
        (_LOOP + _ITEM.replace("c.text }}", "c.text | replace('<', '&lt;') }}") + _END, "they differ for"),
    ],
)
def test_templates_that_do_something_else(source: str, reason: str) -> None:
    with pytest.raises(TurnsError, match="the chat template cannot be written as pieces") as caught:
        find_turns(ChatTemplate(source), _PROMPT)
    assert reason in str(caught.value)


def test_inspect_says_whether_a_phone_runs_it() -> None:
    from dataclasses import replace

    from edge_mllm.cli.inspect import phone

    spec = open_bundle(starter_bundle()).spec
    assert phone(spec) == "yes"
    parts = {name: part for name, part in spec.parts.items() if name != "decoder_onnx"}
    bare = replace(spec, parts=parts, prompt=replace(spec.prompt, turns=None))
    assert phone(bare) == "no, it lacks an ONNX decoder and the chat template as pieces"
    recipe = spec.recipe | {"decoder_onnx": {"phone_gaps": ["the operator MRotaryEmbedding"]}}
    assert phone(replace(spec, recipe=recipe)) == "no, ONNX Runtime lacks the operator MRotaryEmbedding there"
