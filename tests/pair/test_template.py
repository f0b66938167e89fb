"""Where pictures go in chat templates of many forms, found without knowing the model."""

from __future__ import annotations

import pytest

from edge_mllm.errors import PromptError
from edge_mllm.prompt.gguf_template import PictureTemplate
from edge_mllm.prompt.item_template import with_items
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export.shapes import load_shape

MARKER = "<__media__>"
COLON_BEFORE_PICTURE = load_shape("smolvlm-256m").chat_template
VISION_PADS = load_shape("qwen2-vl-2b").chat_template
LOOP = "{% for m in messages %}<{{ m['role'] }}>"
ITEMS = "{% for i in m['content'] %}{% if i['type'] == 'text' %}{{ i['text'] }}"
PLAIN_STRING = LOOP + "{{ m['content'] }}</s>{% endfor %}"
ITEMS_WITHOUT_PICTURES = LOOP + ITEMS + "{% endif %}{% endfor %}</s>{% endfor %}"
NEW_LINE_AFTER = LOOP + ITEMS + "{% elif i['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}{% endfor %}"
NUMBERED = LOOP + ITEMS + "{% else %}Picture {{ loop.index }}: <image>{% endif %}{% endfor %}{% endfor %}"


def question(pictures: int, text: str = "Why?") -> list[dict[str, object]]:
    return [
        {"role": "user", "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]}
    ]


@pytest.mark.parametrize(
    ("source", "placeholder", "expected"),
    [
        (COLON_BEFORE_PICTURE, "<image>", "<|im_start|>User:{0}{0}Why?<end_of_utterance>\nAssistant:"),
        (NEW_LINE_AFTER, "<image>", "<user>{0}\n{0}\nWhy?"),
        (PLAIN_STRING, None, "<user>{0}\n{0}\nWhy?</s>"),
        (ITEMS_WITHOUT_PICTURES, None, "<user>{0}{0}Why?</s>"),
    ],
)
def test_the_marker_stands_where_the_placeholder_was(source: str, placeholder: str | None, expected: str) -> None:
    template = PictureTemplate(source, {}, MARKER)
    assert template.placeholder == placeholder
    assert template.render(question(2), 2) == expected.format(MARKER)
    assert MARKER not in template.render(question(0), 0)


def test_marks_that_libmtmd_writes_itself_are_part_of_the_placeholder() -> None:
    template = PictureTemplate(VISION_PADS, {}, MARKER)
    assert template.placeholder == "<|vision_start|><|image_pad|><|vision_end|>"
    text = template.render(question(2), 2)
    assert text.count(MARKER * 2) == 1 and "vision_start" not in text


def test_turns_before_keep_their_pictures() -> None:
    template = PictureTemplate(COLON_BEFORE_PICTURE, {}, MARKER)
    turns = [*question(1), {"role": "assistant", "content": [{"type": "text", "text": "So."}]}, *question(1, "And?")]
    text = template.render(turns, 2)
    assert text.count(MARKER) == 2 and text.index("So.") < text.rindex(MARKER)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Hello", "does not show what the user says"),
        ("{% if %}", "cannot be read"),
        (LOOP + "{% endfor %}", "not show"),
    ],
)
def test_templates_that_cannot_be_used(source: str, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        PictureTemplate(source, {}, MARKER)


def test_a_template_that_numbers_pictures_is_no_silent_loss() -> None:
    """What it writes for a picture is not one text, so pictures are refused and text still works."""
    template = PictureTemplate(NUMBERED, {}, MARKER)
    assert "Why?" in template.render(question(0), 0)
    assert template.render(question(1), 1).count(MARKER) == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_template_that_takes_texts_gets_what_an_export_gives_it(count: int) -> None:
    """Every picture on a line of its own, in earlier turns too."""
    said = {"role": "assistant", "content": [{"type": "text", "text": "So."}]}
    turns = [{"role": "system", "content": "Be brief."}, *question(1), said, *question(count, "And?")]
    exported = ChatTemplate(with_items(PLAIN_STRING, MARKER)).render(turns, {})
    assert PictureTemplate(PLAIN_STRING, {}, MARKER).render(turns, count + 1) == exported
