"""Answers of random weights are still JSON of the schema, on both engines."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.decoding.sampling import SamplingOptions
from edge_mllm.cli.main import app
from edge_mllm.errors import ExtraMissingError, SchemaError, SettingError

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "paid": {"type": "boolean"},
        "currency": {"enum": ["EUR", "USD"]},
        "total": {"type": "integer", "minimum": 0, "maximum": 99999},
        "shop": {"type": "string", "maxLength": 8},
        "lines": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "maxItems": 3},
    },
    "required": ["paid", "currency", "total", "shop", "lines"],
    "additionalProperties": False,
}
TEXT = json.dumps(SCHEMA)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def model(tiny_bundle, request):
    with edge_mllm.load(tiny_bundle, engine=request.param, threads=1, kv_type="f32", check_hashes=False) as loaded:
        yield loaded


def check(text: str) -> dict:
    document = json.loads(text)
    assert list(document) == list(SCHEMA["properties"])
    assert isinstance(document["paid"], bool)
    assert document["currency"] in ("EUR", "USD")
    assert isinstance(document["total"], int)
    assert 0 <= document["total"] <= 99999
    assert len(document["shop"]) <= 8
    assert len(document["lines"]) <= 3
    assert all(1 <= line <= 9 for line in document["lines"])
    return document


@pytest.mark.parametrize("images", [0, 1])
def test_greedy_answer_is_of_the_schema(model, images):
    pictures = [picture(seed) for seed in range(images)]
    answer = model.generate("Read it.", pictures, max_new_tokens=300, json_schema=TEXT, detail="low")
    check(answer.text)
    assert answer.finish_reason == "stop"
    assert answer.timings.grammar_s > 0
    assert model.generate("Read it.", max_new_tokens=5).timings.grammar_s == 0


def test_drawn_answers_are_of_the_schema_and_differ(model):
    found = set()
    for seed in range(6):
        options = SamplingOptions(temperature=2.0, top_p=0.95, repetition_penalty=1.2, seed=seed)
        answer = model.generate("Read it.", max_new_tokens=300, json_schema=TEXT, sampling=options)
        check(answer.text)
        found.add(answer.text)
    assert len(found) > 3


def test_answer_ends_where_the_schema_ends(model):
    answer = model.generate("?", max_new_tokens=300, json_schema='{"enum": ["yes", "no"]}')
    assert answer.text in ('"yes"', '"no"')
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens < 10


def test_token_limit_cuts_it(model):
    answer = model.generate("?", max_new_tokens=4, json_schema=TEXT)
    assert answer.finish_reason == "length"
    assert TEXT.startswith("{") and answer.text.startswith("{")


def test_every_turn_of_a_chat(model):
    chat = model.chat()
    request = GenerateOptions(max_new_tokens=300, json_schema=TEXT)
    check(chat.ask("Read it.", **request).text)
    check(chat.ask("Again.", **request).text)


@pytest.mark.parametrize(
    "bad", ["", "{", "[1]", '{"type": "nothing"}', '{"$ref": "https://example.org/x.json"}', '{"type": "object", "x']
)
def test_bad_schema_is_found_before_any_work(model, bad):
    with pytest.raises(SchemaError, match="cannot use the JSON schema") as caught:
        model.stream("?", json_schema=bad)
    assert "\n" not in str(caught.value)
    assert model.generate("Hi", max_new_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize("said", ["<end_of_utterance>", "<image>", "a<image>b<|im_end|> <fake_token_around_image>"])
def test_names_of_special_tokens_are_spelt(model, said):
    """The tokens themselves would end the answer, or show nothing."""
    answer = model.generate("?", max_new_tokens=80, json_schema=json.dumps({"const": said}))
    assert json.loads(answer.text) == said
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    "wrapped",
    [
        {"name": "receipt", "schema": SCHEMA},
        {"name": "receipt", "description": "A receipt.", "strict": True, "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "receipt", "strict": True, "schema": SCHEMA}},
    ],
)
def test_what_hosted_services_wrap_around_a_schema_is_taken_off(model, wrapped):
    check(model.generate("Read it.", max_new_tokens=300, json_schema=json.dumps(wrapped)).text)


def test_a_schema_that_would_hold_answers_to_nothing_is_refused(model):
    with pytest.raises(SchemaError, match="no keyword of JSON Schema, only name, fields"):
        model.stream("?", json_schema='{"name": "receipt", "fields": {"type": "string"}}')
    assert model.generate("?", max_new_tokens=80, json_schema="{}").text


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"enum": [-9223372036854775808, "no"]}', "beyond 2^53"),
        ('{"type": "number", "maximum": 1e400}', "beyond 2^53"),
        ('{"const": 1' + "0" * 400 + "}", "beyond 2^53"),
        ('{"items": ' * 100 + "{}" + "}" * 100, "levels deep"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_schemas_that_would_end_the_process(model, bad, words):
    with pytest.raises(SchemaError) as caught:
        model.stream("?", json_schema=bad)
    assert words in str(caught.value)


def test_a_vocabulary_that_cannot_spell_it_says_so(model):
    from edge_mllm.answer.decoding.json_grammar import JsonMask
    from edge_mllm.answer.timings import Stopwatch

    class Matcher:
        def is_error(self):
            return False

        is_stopped = is_error

        def unsafe_compute_mask_ptr(self, *_):
            """Leaves no token."""

    with pytest.raises(SchemaError, match="vocabulary cannot spell"):
        JsonMask(Matcher(), 40, 2, Stopwatch())(np.zeros(40, np.float32), [])


def test_schema_and_fixed_length_exclude_each_other(model):
    with pytest.raises(SettingError, match="ignore_eos"):
        model.stream("?", json_schema=TEXT, ignore_eos=True)


def test_missing_library_says_what_to_type(model, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ExtraMissingError, match=r"edge-mllm\[json\]"):
        model.stream("?", json_schema=TEXT)


def test_command_line(tiny_bundle, tmp_path):
    def run(file):
        args = ["run", "-m", str(tiny_bundle), "--json-schema", str(file), "--threads", "1", "--json", "Read it."]
        return CliRunner().invoke(app, args)

    (tmp_path / "schema.json").write_text(TEXT)
    (tmp_path / "marked.json").write_text(TEXT, "utf-8-sig")
    check(json.loads(run(tmp_path / "marked.json").stdout)["text"])
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    check(json.loads(run(tmp_path / "schema.json").stdout)["text"])
    for name in ("bad.json", "binary.json", "none.json"):
        result = run(tmp_path / name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("edge-mllm: cannot use the JSON schema")
        assert len(result.stderr.splitlines()) == 1
