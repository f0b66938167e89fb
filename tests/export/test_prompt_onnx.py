"""Prompt weights: keys and values near the float decoder's for every kind of decoder, and what the runtime does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from decoder_kinds import KINDS, make_tied, shown_picture

import edge_mllm
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.costs.estimate import Ask, costs
from edge_mllm.costs.facts import facts_of_bundle
from edge_mllm.decoders.ort import prompt as ort_prompt
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.ort.prompt import LEAST_RUN
from edge_mllm.decoders.protocol import Segment, Tokens
from edge_mllm.decoders.select import engine_binding
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import PartChangedError, PartMismatchError, SettingError
from edge_mllm.session.files import open_bundle
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.options import choose_recipes
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.write.onnx.decoder import DATA as DECODER_DATA
from edge_mllm_export.write.onnx.decoder import EMBEDDINGS, write_decoder_onnx
from edge_mllm_export.write.onnx.decoder import GRAPH as DECODER
from edge_mllm_export.write.onnx.prompt import DATA, GRAPH, write_prompt_onnx
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.recipe import find_recipe

ROUNDING = 0.06
"""Relative error of keys and values that 8-bit weights and activations make in these random models; 4-bit weights make
three times as much or more."""


@dataclass(frozen=True)
class Made:
    """Decoders of one checkpoint."""

    source: Path
    text: Path
    exact: Path
    """Folder of the decoder in floats."""
    small: Path
    """Folder of the 4-bit one, with prompt weights."""
    spec: DecoderSpec

    def decoder(self, folder: Path, *, prompt: bool = False, **settings: Any) -> OrtDecoder:
        chosen = DecoderSettings(**{"threads": 1, "n_ctx": 512, **settings})
        file = folder / GRAPH if prompt else None
        return OrtDecoder(folder / DECODER, folder / EMBEDDINGS, self.spec, chosen, prompt=file)

    def segments(self) -> list[Segment]:
        """Text, a picture, text."""
        return shown_picture(self.spec)


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    source = KINDS[request.param](tmp_path_factory.mktemp("tiny") / "model")
    checkpoint = open_checkpoint(source)
    family, root = find_family(checkpoint), tmp_path_factory.mktemp("decoders")
    text, spec = write_text_checkpoint(checkpoint, family, root / "text"), family.decoder(checkpoint)
    for name in ("f32", "int4_b32"):
        (root / name).mkdir()
        write_decoder_onnx(text, root / name, find_recipe("onnx", name), image_attention=spec.image_attention)
    report = write_prompt_onnx(text, root / "int4_b32")
    assert report.products > 5
    assert report.kept == ()
    return Made(source, text, root / "f32", root / "int4_b32", spec)


def _keys_and_values(decoder: OrtDecoder, segments: list[Segment], skip: int = 1) -> np.ndarray:
    """Of all cells but the last ``skip``: decoder.onnx makes one."""
    decoder.prefill(segments)
    return np.concatenate([array[:, :, : decoder.n_past - skip].ravel() for array in decoder.state().arrays])


def _errors(made: Made, segments: list[Segment], **cells: int) -> tuple[float, float]:
    """Relative errors with prompt weights and without."""
    exact = _keys_and_values(made.decoder(made.exact), segments, **cells)
    both = (_keys_and_values(made.decoder(made.small, prompt=way), segments, **cells) for way in (True, False))
    ours, plain = (float(np.linalg.norm(each - exact) / np.linalg.norm(exact)) for each in both)
    return ours, plain


def test_keys_and_values_are_near_the_float_decoders(made: Made) -> None:
    ours, plain = _errors(made, made.segments())
    assert 1e-4 < ours < ROUNDING
    assert 3 * ours < plain


def test_it_does_not_matter_where_a_prompt_is_cut(made: Made) -> None:
    segments = made.segments()
    whole = _keys_and_values(made.decoder(made.small, prompt=True), segments)
    for chunk in (64, 37, 17):
        cut = _keys_and_values(made.decoder(made.small, prompt=True, chunk=chunk), segments)
        np.testing.assert_array_equal(cut, whole)


def test_a_picture_at_the_end_is_computed_whole(made: Made) -> None:
    """Where its tokens see each other it is left to decoder.onnx; else all but its last token is not."""
    before, picture = made.segments()[:2]
    left = 24 if made.spec.image_attention == "bidirectional" else 1
    ours, plain = _errors(made, [before, picture], skip=left)
    assert 3 * ours < plain
    ours, plain = _errors(made, [before, picture], skip=0)
    assert ours < 1.05 * plain


def test_what_only_logits_need_is_left_out(made: Made) -> None:
    model = onnx.load_model(made.small / GRAPH, load_external_data=False)
    assert all(value.name.startswith("present.") for value in model.graph.output)
    assert "num_logits_to_keep" not in [value.name for value in model.graph.input]
    last = f"layers.{made.spec.n_layer - 1}/"
    products = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert any(last in name for name in products)
    assert not any("lm_head" in name or (last in name and "mlp" in name) for name in products)


def test_bytes_are_those_that_plan_tells(made: Made) -> None:
    model = onnx.load_model(made.small / GRAPH, load_external_data=False)
    stored = 0
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") == DATA:
            stored += int(entries["length"])
        else:
            assert entries.get("location", DECODER_DATA) == DECODER_DATA
            assert tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.ByteSize() < 4096
    told = facts_of_source(str(made.source)).decoders["onnx"]
    plain, added = (
        [each for each in told if each.recipe == "int4_b32" and each.prompt == name] for name in ("", "int8")
    )
    assert [each.weight_bytes for each in added] == [plain[0].weight_bytes + stored]
    assert (added[0].prefill, added[0].default) == ("int4_b32+int8", False)


@pytest.mark.parametrize("made", ["one axis"], indirect=True)
class TestOneDecoder:
    """What depends on no kind of decoder."""

    def test_short_prefills_and_those_with_all_logits_do_without(
        self, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_args: Any) -> None:
            pytest.fail("the prompt graph was loaded")

        monkeypatch.setattr(ort_prompt, "OrtGraph", refuse)
        decoder, plain = made.decoder(made.small, prompt=True), made.decoder(made.small)
        few = [Tokens(np.arange(LEAST_RUN - 1))]
        np.testing.assert_array_equal(decoder.prefill(few), plain.prefill(few))
        every = [decoder.prefill(made.segments(), all_logits=True), plain.prefill(made.segments(), all_logits=True)]
        np.testing.assert_array_equal(*every)
        decoder.warm(LEAST_RUN - 1)

    def test_cut_back_saved_and_restored(self, made: Made) -> None:
        decoder = made.decoder(made.small, prompt=True)
        segments = made.segments()
        whole = decoder.prefill(segments)
        saved = decoder.state()
        decoder.step(5)
        decoder.truncate(30)
        decoder.prefill([Tokens(np.arange(60))])
        decoder.truncate(0)
        np.testing.assert_array_equal(decoder.prefill(segments), whole)
        other = made.decoder(made.small, prompt=True)
        other.restore(saved)
        np.testing.assert_array_equal(other.step(5), decoder.step(5))

    def test_weights_rest_between_prompts_where_memory_is_short(self, made: Made) -> None:
        keeping, freeing = (made.decoder(made.small, prompt=True, prompt_weights=way) for way in ("keep", "free"))
        size = sum((made.small / name).stat().st_size for name in (GRAPH, DATA))
        assert keeping.waiting_bytes(400) == size
        assert keeping.waiting_bytes(LEAST_RUN - 1) == 0
        for decoder, after in ((keeping, 0), (freeing, size)):
            decoder.warm(400)
            assert decoder.waiting_bytes(400) == 0
            decoder.prefill(made.segments())
            assert decoder.waiting_bytes(400) == 0
            decoder.step(3)
            assert decoder.waiting_bytes(400) == after

    def test_a_prompt_graph_of_another_decoder(self, made: Made, tmp_path: Path) -> None:
        for name in (DECODER_DATA, EMBEDDINGS, DECODER, DATA):
            shutil.copy(made.small / name, tmp_path)
        model = onnx.load_model(made.small / GRAPH)
        for value in (*model.graph.input, *model.graph.output):
            if value.name.endswith("1.key"):
                value.type.tensor_type.elem_type = onnx.TensorProto.INT8
        del model.graph.node[:]
        del model.graph.initializer[:]
        model.graph.node.extend(
            onnx.helper.make_node("Identity", [value.name.replace("present", "past_key_values")], [value.name])
            for value in model.graph.output
        )
        onnx.save_model(model, tmp_path / GRAPH)
        decoder = made.decoder(tmp_path, prompt=True)
        with pytest.raises(PartMismatchError, match="does not keep the keys and values"):
            decoder.prefill(made.segments())

    def test_weights_of_another_checkpoint(self, made: Made, tmp_path: Path) -> None:
        for name in (DECODER, DECODER_DATA):
            shutil.copy(made.small / name, tmp_path)
        other = make_tied(tmp_path / "other", seed=9)
        checkpoint = open_checkpoint(other)
        text = write_text_checkpoint(checkpoint, find_family(checkpoint), tmp_path / "text")
        with pytest.raises(DecoderBuildError, match=r"does not hold .*leave `prompt_weights` out"):
            write_prompt_onnx(text, tmp_path)

    def test_a_decoder_in_floats_has_nothing_to_replace(self, made: Made) -> None:
        with pytest.raises(DecoderBuildError, match="no layer"):
            write_prompt_onnx(made.text, made.exact)
        (made.exact / DATA).unlink()


@pytest.fixture(scope="module")
def bundle(tiny_smolvlm_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Verified, with prompt weights."""
    out = tmp_path_factory.mktemp("export") / "prompt.edge"
    options = ExportOptions(format="onnx", prompt_weights="int8", allow_loss=True, calibration=False)
    export_bundle(str(tiny_smolvlm_tied), out, options)
    return out


def test_the_bundle_names_its_parts_and_its_loss(bundle: Path) -> None:
    spec = open_bundle(bundle).spec
    assert {spec.parts[name].precision for name in ("prompt_onnx", "prompt_onnx_data")} == {"int8"}
    report = spec.recipe["prompt_onnx"]
    assert report["name"] == "int8"
    assert report["bytes"] == spec.parts["prompt_onnx"].bytes + spec.parts["prompt_onnx_data"].bytes
    numbers = spec.verification["engines"]["onnx"]
    assert numbers["prompt_weights"] == "int8"
    for name in ("decoder", "whole"):
        assert 0 < numbers[name]["kl_mean"] < numbers["without_prompt_weights"][name]["kl_mean"]


def test_a_changed_part_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edge"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    data = bytearray((copy / DATA).read_bytes())
    data[100] ^= 1
    (copy / DATA).write_bytes(data)
    opened = open_bundle(copy, check_hashes=False)
    with pytest.raises(PartChangedError, match=r"prompt\.onnx\.data"):
        opened.check_hashes("onnx")
    opened.check_hashes("gguf")


def test_answers_use_them_unless_told_not_to(bundle: Path) -> None:
    picture = draw_picture(90, 30, seed=0)
    caches, texts = {}, {}
    for name, options in {"used": {}, "low": {"low_memory": True}, "off": {"prompt_weights": False}}.items():
        with edge_mllm.load(bundle, threads=1, **options) as model:  # type: ignore[arg-type]
            answer = model.generate("What does it say?", images=[picture], max_new_tokens=6, ignore_eos=True)
            caches[name], texts[name] = model.decoder.state().arrays, answer.text
            loaded = model.decoder.waiting_bytes(400) == 0
            assert loaded == (name != "low")
    assert texts["used"] == texts["low"]
    assert all(map(np.array_equal, caches["used"], caches["low"]))
    assert not np.array_equal(caches["used"][0], caches["off"][0])


def test_a_plan_counts_them_until_they_are_loaded(bundle: Path) -> None:
    spec, picture = open_bundle(bundle).spec, draw_picture(90, 30, seed=0)
    size = spec.parts["prompt_onnx"].bytes + spec.parts["prompt_onnx_data"].bytes
    with edge_mllm.load(bundle, threads=1) as model:
        before = model.plan("What does it say?", [picture], max_new_tokens=4)
        assert before.memory is not None
        assert size <= before.memory.decoder_bytes < 1.5 * size
        assert before.file_bytes > size
        model.generate("What does it say?", [picture], max_new_tokens=4)
        after = model.plan("And now?", [draw_picture(90, 30, seed=1)], max_new_tokens=4)
        assert after.memory is not None
        assert after.memory.decoder_bytes == 0
    (cost,) = costs(facts_of_bundle(open_bundle(bundle)), Ask(), None)
    assert cost.decoder.prefill == "int4_b32+int8"
    assert cost.decoder.bytes > size
    assert cost.decoder.token_bytes < cost.decoder.bytes - size


def test_a_saved_chat_belongs_to_one_of_the_two() -> None:
    settings = DecoderSettings(threads=1)
    used, freed, off = (
        engine_binding("x", "onnx", replace(settings, prompt_weights=way)) for way in ("keep", "free", "off")
    )
    assert used == freed != off


def test_they_go_with_a_quantised_onnx_decoder() -> None:
    assert "prompt" in choose_recipes(ExportOptions(prompt_weights="int8"))
    for options in (ExportOptions(format="gguf"), ExportOptions(quant="f32")):
        with pytest.raises(SettingError, match=r"quantised decoder\.onnx"):
            choose_recipes(replace(options, prompt_weights="int8"))
    with pytest.raises(SettingError, match="prompt weights: int8"):
        choose_recipes(ExportOptions(prompt_weights="int3"))
    with pytest.raises(SettingError, match="prompt_weights is 'maybe'"):
        DecoderSettings(threads=1, prompt_weights="maybe")  # type: ignore[arg-type]
