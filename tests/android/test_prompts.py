"""Prompts of the phone's code for every family: the ids that the chat template and the tokenizers library give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from android.conftest import Core
from family_makers import MAKERS, make_tiny

from edge_mllm.bundle.files import write_spec
from edge_mllm.bundle.spec import SCHEMA_VERSION, BundleSpec, Part, PromptSpec, Source
from edge_mllm.bundle.turns import Turns
from edge_mllm.cli.inspect import phone
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.prompt.build import build_prompt
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm.prompt.turns import TurnsError, find_turns

_PARTS = ("vision", "decoder_onnx", "embeddings", "newline")
_SIZES = [[300, 200], [90, 260], [64, 64]]
_TALKS: list[list[tuple[str, str, int]]] = [
    [("user", "What is this?", 0)],
    [("user", " Ünï🙂\n two  lines ", 1)],
    [("user", "What is the total?\n", 3)],
    [("user", "", 1)],
    [("user", "one", 1), ("assistant", "  a reply \n", 0), ("user", "two {{ x }}", 0)],
    [("user", "one", 0), ("assistant", "a", 0), ("user", "two", 2), ("assistant", "b", 0), ("user", "three", 1)],
    [("system", " Be short. ", 0), ("user", "x", 1), ("assistant", "y", 0), ("user", "z", 0)],
]
"""Role, text and number of pictures of each turn."""


def _bundle(family: str, folder: Path) -> tuple[Path, BundleSpec, Any, ChatTemplate]:
    """A bundle with a family's prompt and tokenizer; nobody opens its other files."""
    from tokenizers import Tokenizer

    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.write.tokenizer_files import tokenizer_json

    checkpoint = open_checkpoint(make_tiny(family, folder))
    found = find_family(checkpoint)
    template, decoder, prompt = ChatTemplate(found.chat_template(checkpoint)), found.decoder(checkpoint), None
    prompt = found.prompt(checkpoint)
    text = tokenizer_json(checkpoint, decoder.n_vocab)
    bundle = folder / "bundle.edge"
    bundle.mkdir()
    (bundle / "tokenizer.json").write_text(text, "utf-8")
    for name in _PARTS:
        (bundle / name).write_bytes(b"x")
    files = {**{name: name for name in _PARTS}, "tokenizer": "tokenizer.json"}
    parts = {
        name: Part(file=file, sha256="0" * 64, bytes=(bundle / file).stat().st_size, precision="")
        for name, file in files.items()
    }
    spec = BundleSpec(
        schema_version=SCHEMA_VERSION,
        name=family,
        source=Source(id=family, revision=None, sha256="0" * 64, licence="", family=family),
        image=found.image(checkpoint),
        vision=found.vision(checkpoint),
        prompt=replace(prompt, turns=_turns(template, prompt)),
        decoder=decoder,
        parts=parts,
        recipe={},
        verification={},
        created="",
        exporter={},
    )
    write_spec(spec, bundle / "bundle.json")
    return bundle, spec, Tokenizer.from_str(text), template


def _turns(template: ChatTemplate, prompt: PromptSpec) -> Turns | None:
    try:
        return find_turns(template, prompt)
    except TurnsError:
        return None


UNKNOWN = {
    "minicpm_v": "image.tiler.kind",
    "minicpm_v_4_6": "image.tiler.kind",
    "minicpm_v_4_7": "image.tiler.kind",
    "qwen3_5": "decoder.state_layers",
}
"""Families whose pictures the phone does not cut, or whose decoders it does not run -> the field that it names."""


@pytest.mark.parametrize(("family", "field"), UNKNOWN.items())
def test_what_it_does_not_run_is_refused(core: Core, family: str, field: str, tmp_path: Path) -> None:
    bundle, spec, _, _ = _bundle(family, tmp_path)
    reply = core.ask("prompt", bundle=str(bundle), messages=[{"role": "user", "text": "x"}], sizes=[])
    assert field in reply["error"]
    assert phone(spec).startswith("no, ")


@pytest.mark.parametrize("family", sorted(set(MAKERS) - set(UNKNOWN)))
def test_prompts_of_every_family(core: Core, family: str, tmp_path: Path) -> None:
    bundle, spec, tokenizer, template = _bundle(family, tmp_path)
    for talk in _TALKS:
        if talk[0][0] == "system" and spec.prompt.turns is not None and spec.prompt.turns.system is None:
            continue
        sizes = _SIZES[: sum(count for _, _, count in talk)]
        tiler = spec.image.tiler_for(len(sizes))
        plans = [plan_tiles(width, height, tiler) for width, height in sizes]
        messages = [
            {"role": role, "content": [*({"type": "image"} for _ in range(count)), {"type": "text", "text": text}]}
            for role, text, count in talk
        ]
        expected = build_prompt(messages, plans, spec, tokenizer, template)
        asked = [{"role": role, "text": text, "pictures": count} for role, text, count in talk]
        reply = core.ask("prompt", bundle=str(bundle), messages=asked, sizes=sizes)
        assert reply.get("text") == expected.text, (talk, reply)
        assert reply["ids"] == expected.ids.tolist(), talk


def test_what_turns_cannot_say_is_refused(core: Core, tmp_path: Path) -> None:
    bundle = _bundle("idefics3", tmp_path)[0]
    user, model = {"role": "user", "text": "x"}, {"role": "assistant", "text": "y"}
    cases = {
        "the turns of user and model must alternate": [user, user],
        "the last turn must be the user's": [user, model],
        "there is no message": [],
        "the text contains '<image>'": [{"role": "user", "text": "an <image>"}],
        "the messages have places for 1 pictures, 0 were given": [user | {"pictures": 1}],
    }
    for said, messages in cases.items():
        assert said in core.ask("prompt", bundle=str(bundle), messages=messages, sizes=[])["error"]
