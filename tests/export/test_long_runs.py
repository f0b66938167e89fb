"""A cache in 8 bits: prompts attend in float32 and round what they leave, answers read the codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from decoder_kinds import KINDS, shown_picture

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.protocol import DecoderState, Segment, Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.write.onnx import cache
from edge_mllm_export.write.onnx.decoder import EMBEDDINGS, GRAPH, write_decoder_onnx
from edge_mllm_export.write.onnx.long_runs import MANY
from edge_mllm_export.write.onnx.prompt import GRAPH as PROMPT
from edge_mllm_export.write.onnx.prompt import write_prompt_onnx
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.recipe import find_recipe


@dataclass(frozen=True)
class Made:
    """Decoders of one checkpoint: ``f32``, ``codes`` (its cache in 8 bits), ``before`` (so without the second way)."""

    root: Path
    text: Path
    spec: DecoderSpec
    peaks: dict[int, tuple[FloatArray, FloatArray]]
    """Layer -> largest absolute key and value, float32 [heads, head_dim]."""
    scales: tuple[FloatArray, ...]
    """Of keys and values in the order of the cache, float32 [1, heads, 1, head_dim]."""

    def decoder(self, name: str, *, prompt: bool = False) -> OrtDecoder:
        return _decoder(self.root / name, self.spec, prompt=prompt)

    def codes(self, state: DecoderState) -> list[np.ndarray]:
        """What a float cache rounds to; not yet whole numbers."""
        return [array / scale for array, scale in zip(state.arrays, self.scales, strict=True)]

    def segments(self) -> list[Segment]:
        """Text, a picture, text."""
        return shown_picture(self.spec)


def _decoder(folder: Path, spec: DecoderSpec, *, prompt: bool = False) -> OrtDecoder:
    file = folder / PROMPT if prompt else None
    settings = DecoderSettings(threads=1, n_ctx=512)
    return OrtDecoder(folder / GRAPH, folder / EMBEDDINGS, spec, settings, prompt=file)


@pytest.fixture(scope="module", params=("one axis", "three axes", "both ways"))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    checkpoint = open_checkpoint(KINDS[request.param](tmp_path_factory.mktemp("tiny") / "model"))
    family, root = find_family(checkpoint), tmp_path_factory.mktemp("decoders")
    text, spec = write_text_checkpoint(checkpoint, family, root / "text"), family.decoder(checkpoint)
    recipe, attention = find_recipe("onnx", "f32"), spec.image_attention
    for name in ("f32", "codes", "before"):
        (root / name).mkdir()
    write_decoder_onnx(text, root / "f32", recipe, image_attention=attention)
    exact = _decoder(root / "f32", spec)
    exact.prefill(shown_picture(spec))
    names = [past.removeprefix("past_key_values.") for past, _ in exact._cache._names]
    reach = {name: np.abs(array[0]).max(axis=1) for name, array in zip(names, exact.state().arrays, strict=True)}
    peaks = {layer: (reach[f"{layer}.key"], reach[f"{layer}.value"]) for layer in range(spec.n_layer)}
    write_decoder_onnx(text, root / "codes", recipe, image_attention=attention, cache_peaks=peaks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "compute_long_runs_in_floats", lambda model: None)
        write_decoder_onnx(text, root / "before", recipe, image_attention=attention, cache_peaks=peaks)
    scales = tuple(np.float32(1.1) * each[None, :, None] / np.float32(127) for each in reach.values())
    return Made(root, text, spec, peaks, scales)


def test_a_prompt_leaves_the_float_decoders_keys_and_values_rounded(made: Made) -> None:
    """Nothing of the rounding reaches the prompt itself: every code is the nearest to the float decoder's value."""
    exact, ours = made.decoder("f32"), made.decoder("codes")
    np.testing.assert_allclose(ours.prefill(made.segments()), exact.prefill(made.segments()), atol=1e-5)
    for found, expected in zip(ours.state().arrays, made.codes(exact.state()), strict=True):
        assert found.dtype == np.int8
        assert np.abs(found - expected).max() < 0.5 + 1e-3


def test_a_second_run_reads_the_codes_that_the_first_left(made: Made) -> None:
    exact, ours = made.decoder("f32"), made.decoder("codes")
    before, after = made.segments(), [Tokens(np.arange(7, 7 + 2 * MANY))]
    for decoder in (exact, ours):
        decoder.prefill(before)
    state = ours.state()
    unpacked = tuple(array * scale for array, scale in zip(state.arrays, made.scales, strict=True))
    exact.restore(DecoderState(state.after, unpacked))
    np.testing.assert_allclose(ours.prefill(after), exact.prefill(after), atol=1e-4)
    for found, expected in zip(ours.state().arrays, made.codes(exact.state()), strict=True):
        assert np.abs(found - np.clip(expected, -128, 127)).max() < 0.5 + 1e-2


def test_few_tokens_are_computed_as_before(made: Made) -> None:
    """Bit for bit: a step, and every number of tokens below the border; the first beyond it is not."""
    ours, before = made.decoder("codes"), made.decoder("before")
    ours.prefill(made.segments())
    state = ours.state()
    for count in (1, 2, MANY - 1, MANY):
        found = []
        for decoder in (ours, before):
            decoder.restore(state)
            logits = decoder.prefill([Tokens(np.arange(5, 5 + count))], all_logits=True)
            found.append(np.concatenate([logits.ravel(), decoder.step(3)]))
        assert np.array_equal(*found) == (count < MANY), count


def test_rows_go_behind_a_cache_that_was_cut_and_grown(made: Made) -> None:
    ours, fresh = made.decoder("codes"), made.decoder("codes")
    first, second = [Tokens(np.arange(3, 63))], [Tokens(np.arange(70, 70 + 3 * MANY))]
    for decoder in (ours, fresh):
        decoder.prefill(first)
    ours.prefill([Tokens(np.arange(100, 100 + MANY))])
    ours.truncate(60)
    ours.reserve(400)
    np.testing.assert_array_equal(ours.prefill(second), fresh.prefill(second))
    np.testing.assert_array_equal(ours.step(9), fresh.step(9))


def test_prompt_weights_take_the_same_way(made: Made) -> None:
    """Integer products for ``prompt.onnx``, keys and values of both caches the same but for their rounding."""
    recipe, attention = find_recipe("onnx", "int4_b32"), made.spec.image_attention
    for name, peaks in (("f32_int4", None), ("codes_int4", made.peaks)):
        folder = made.root / name
        folder.mkdir()
        write_decoder_onnx(made.text, folder, recipe, image_attention=attention, cache_peaks=peaks)
        write_prompt_onnx(made.text, folder)
    exact, ours = made.decoder("f32_int4", prompt=True), made.decoder("codes_int4", prompt=True)
    segments = made.segments()
    exact.prefill(segments)
    ours.prefill(segments)
    for found, expected in zip(ours.state().arrays, made.codes(exact.state()), strict=True):
        off = np.abs(found - np.clip(expected, -128, 127))[:, :, :-1]
        assert off.max() < 0.5 + 1e-3, "the last token is decoder.onnx's, and reads the codes"
