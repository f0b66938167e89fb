"""Both decoder engines in 32-bit floats against transformers, with visual embeddings in the prompt."""

import ctypes
import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.select import choose_engine
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import (
    BundleError,
    ContextOverflowError,
    EngineError,
    ExtraMissingError,
    PartMismatchError,
    SettingError,
)
from edge_mllm.machine.llama import Library
from edge_mllm.machine.ort import products_overflow
from edge_mllm.session.files import open_bundle

ENGINES = ["onnx", "gguf"]
TOLERANCE = 1e-4


def make(bundle, engine, spec=None, **settings):
    settings = DecoderSettings(**{"threads": 1, "kv_type": "f32", **settings})
    spec = spec or bundle.spec.decoder
    if engine == "onnx":
        return OrtDecoder(bundle.file("decoder_onnx"), bundle.file("embeddings"), spec, settings)
    return LlamaDecoder(bundle.file("decoder_gguf"), spec, settings)


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def wide_bundle(tiny_smolvlm_tied, tmp_path_factory):
    """GGUF only, with heads of 64: a cache in blocks of 32 needs that."""
    from edge_mllm_export import ExportOptions, export_bundle

    out = tmp_path_factory.mktemp("bundle") / "wide.edge"
    export_bundle(str(tiny_smolvlm_tied), out, ExportOptions(format="gguf", quant="f32", vision="fp32", verify=False))
    return open_bundle(out)


@pytest.fixture
def decoder(bundle, request):
    made = make(bundle, request.param)
    yield made
    made.close()


each_engine = pytest.mark.parametrize("decoder", ENGINES, indirect=True)


@pytest.fixture(scope="module")
def segments(bundle):
    """Text, a picture, text, a picture, text: 79 cells."""
    draw = np.random.default_rng(0)
    width, vocabulary = bundle.spec.decoder.n_embd, bundle.spec.decoder.n_vocab
    return [
        Tokens(draw.integers(0, vocabulary, 20)),
        Visual(draw.normal(size=(16, width)).astype(np.float32)),
        Tokens(draw.integers(0, vocabulary, 7)),
        Visual(draw.normal(size=(16, width)).astype(np.float32)),
        Tokens(draw.integers(0, vocabulary, 20)),
    ]


@pytest.fixture(scope="module")
def reference(tiny_smolvlm):
    """Logits [n, n_vocab] of segments, from torch."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tiny_smolvlm, dtype=torch.float32).eval()

    @torch.no_grad()
    def logits(segments):
        table = model.get_input_embeddings()
        rows = [
            table(torch.from_numpy(part.ids)) if isinstance(part, Tokens) else torch.from_numpy(part.embeddings)
            for part in segments
        ]
        states = model.model.text_model(inputs_embeds=torch.cat(rows)[None]).last_hidden_state
        return model.lm_head(states)[0].numpy()

    return logits


def greedy(decoder, logits, count):
    tokens = []
    for _ in range(count):
        tokens.append(int(np.argmax(logits)))
        logits = decoder.step(tokens[-1])
    return tokens, logits


@pytest.mark.parametrize("chunk", [13, 512])
@pytest.mark.parametrize("engine", ENGINES)
def test_logits_of_every_position(bundle, segments, reference, engine, chunk):
    decoder = make(bundle, engine, chunk=chunk)
    found, expected = decoder.prefill(segments, all_logits=True), reference(segments)
    assert found.dtype == np.float32
    assert decoder.n_past == 79
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    decoder.truncate(0)
    np.testing.assert_allclose(decoder.prefill(segments), expected[-1], atol=TOLERANCE)
    decoder.close()


@each_engine
def test_greedy_continuation(decoder, segments, reference):
    tokens, last = greedy(decoder, decoder.prefill(segments), 32)
    expected = reference([*segments, Tokens(np.array(tokens))])
    assert tokens == np.argmax(expected[78:-1], axis=-1).tolist()
    np.testing.assert_allclose(last, expected[-1], atol=TOLERANCE)
    assert len(set(tokens)) > 5


@each_engine
def test_cut_back_and_continued_equals_fresh(decoder, segments):
    whole = decoder.prefill(segments)
    greedy(decoder, whole, 10)
    decoder.truncate(36)
    assert decoder.n_past == 36
    np.testing.assert_allclose(decoder.prefill(segments[2:]), whole, atol=TOLERANCE)
    decoder.truncate(30)
    rest = [Visual(segments[1].embeddings[10:]), *segments[2:]]
    np.testing.assert_allclose(decoder.prefill(rest), whole, atol=TOLERANCE)


@each_engine
def test_same_borders_give_the_same_bits(decoder, segments):
    first = decoder.prefill(segments[:2]), decoder.prefill(segments[2:])
    decoder.truncate(36)
    again = decoder.prefill(segments[2:])
    assert np.array_equal(first[1], again)


@each_engine
def test_embeddings_of_tokens_stand_for_them(decoder, segments):
    ids = segments[0].ids
    expected = decoder.prefill([Tokens(ids)])
    decoder.truncate(0)
    rows = decoder.embed(ids)
    assert (rows.dtype, rows.shape) == (np.float32, (len(ids), decoder.n_embd))
    assert np.array_equal(decoder.prefill([Visual(rows)]), expected)
    with pytest.raises(EngineError, match="outside the vocabulary"):
        decoder.embed(np.array([decoder.n_vocab]))


def test_pictures_and_text_go_to_llama_in_full_batches(bundle, segments, monkeypatch):
    decoder, sizes = make(bundle, "gguf", chunk=30), []
    decoder.embed(segments[0].ids)
    genuine = decoder._context.decode

    def counted(batch, **how):
        sizes.append(batch.n_tokens)
        genuine(batch, **how)

    monkeypatch.setattr(decoder._context, "decode", counted)
    decoder.prefill(segments)
    assert sizes == [30, 30, 19]
    decoder.close()


@each_engine
def test_cache_grows_with_its_contents(decoder, segments, reference):
    tokens, last = greedy(decoder, decoder.prefill(segments), 300)
    expected = reference([*segments, Tokens(np.array(tokens))])
    np.testing.assert_allclose(last, expected[-1], atol=TOLERANCE)


@each_engine
def test_room_reserved_in_advance(decoder, segments, reference):
    decoder.reserve(700)
    decoder.reserve(10**9)
    np.testing.assert_allclose(decoder.prefill(segments), reference(segments)[-1], atol=TOLERANCE)


@each_engine
def test_all_logits_after_a_plain_prefill(decoder, segments, reference):
    decoder.prefill(segments[:2])
    found = decoder.prefill(segments[2:], all_logits=True)
    np.testing.assert_allclose(found, reference(segments)[36:], atol=TOLERANCE)


@pytest.mark.parametrize("engine", ENGINES)
def test_context_limit(bundle, segments, engine):
    decoder = make(bundle, engine, n_ctx=80)
    assert decoder.n_ctx == 80
    decoder.prefill(segments)
    decoder.step(1)
    with pytest.raises(ContextOverflowError, match="81 tokens but"):  # how many are of pictures is not known here
        decoder.step(1)
    with pytest.raises(ContextOverflowError):
        decoder.prefill([Tokens(np.array([1]))])
    decoder.truncate(0)
    visual = 2 * sum(len(part.embeddings) for part in segments if isinstance(part, Visual))
    assert visual > 0
    with pytest.raises(ContextOverflowError, match=f"[(]{visual} of them for pictures[)]"):
        decoder.prefill([*segments, *segments])
    assert decoder.n_past == 0
    decoder.close()


@each_engine
def test_bad_calls_are_refused_and_harmless(decoder, segments, reference):
    for bad in (Tokens(np.array([10**6])), Visual(np.zeros((3, 5), np.float32))):
        with pytest.raises(EngineError):
            decoder.prefill([segments[0], bad])
    for token in (-1, decoder.n_vocab):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            decoder.step(token)
    with pytest.raises(EngineError, match="nothing"):
        decoder.prefill([])
    with pytest.raises(EngineError, match="cannot cut"):
        decoder.truncate(1)
    np.testing.assert_allclose(decoder.prefill(segments), reference(segments)[-1], atol=TOLERANCE)


@each_engine
def test_interruption_after_the_engine_ran(decoder, segments, reference, monkeypatch):
    """Ctrl-C arrives when the native call returns: its cells are in the cache, but nobody has counted them."""
    decoder.prefill(segments[:2])
    target, name = (decoder._context, "decode") if isinstance(decoder, LlamaDecoder) else (decoder._graph, "run")
    genuine = getattr(target, name)

    def interrupted(*args, **kwargs):
        genuine(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(target, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoder.prefill(segments[2:])
    monkeypatch.undo()
    assert decoder.n_past == 36
    np.testing.assert_allclose(decoder.prefill(segments[2:]), reference(segments)[-1], atol=TOLERANCE)


@pytest.mark.parametrize("engine", ENGINES)
def test_parts_that_do_not_belong_together(bundle, engine):
    for change in ({"n_vocab": 77}, {"n_embd": 128}):
        with pytest.raises(PartMismatchError):
            make(bundle, engine, dataclasses.replace(bundle.spec.decoder, **change))


@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_file(bundle, engine, tmp_path):
    for part in ("decoder_onnx", "decoder_onnx_data", "embeddings", "decoder_gguf"):
        shutil.copy(bundle.file(part), tmp_path)
    broken = tmp_path / bundle.file(f"decoder_{engine}").name
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    settings = DecoderSettings(threads=1)
    kind = BundleError if engine == "gguf" else EngineError  # a GGUF file's header is read before llama.cpp sees it
    with pytest.raises(kind, match=broken.name) as caught:
        if engine == "onnx":
            OrtDecoder(broken, tmp_path / "embeddings.npy", bundle.spec.decoder, settings)
        else:
            LlamaDecoder(broken, bundle.spec.decoder, settings)
    assert "\n" not in str(caught.value)


def test_embedding_table_is_never_unpickled(bundle, tmp_path):
    evil = tmp_path / "embeddings.npy"
    np.save(evil, np.array([object()]), allow_pickle=True)
    with pytest.raises(BundleError, match=r"embeddings\.npy"):
        OrtDecoder(bundle.file("decoder_onnx"), evil, bundle.spec.decoder, DecoderSettings(threads=1))


def test_onnx_engine_has_one_cache_type(bundle):
    with pytest.raises(SettingError, match="gguf"):
        make(bundle, "onnx", kv_type="q8_0")


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("flash", [None, True])
def test_smaller_cache_types_of_llama(wide_bundle, kv_type, flash):
    bundle = wide_bundle
    draw = np.random.default_rng(1)
    prompt = [Tokens(draw.integers(0, bundle.spec.decoder.n_vocab, 60))]
    exact = make(bundle, "gguf").prefill(prompt)
    decoder = make(bundle, "gguf", kv_type=kv_type, flash_attention=flash)
    found = decoder.prefill(prompt)
    error = np.abs(found - exact).max() / exact.std()
    assert 0 < error < 0.2


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"threads": 1, "n_ctx": 0}, {"threads": 1, "kv_type": "q2"}, {"threads": 1, "chunk": 0}],
)
def test_settings_outside_their_range(settings):
    with pytest.raises(SettingError):
        DecoderSettings(**settings)


def test_missing_llama_cpp_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'edge-mllm\[gguf\]'"):
        Library()


def _mapped(path):
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list its mappings")
@pytest.mark.parametrize(
    ("quant", "asked", "mapped"), [("f32", None, True), ("q4_0", None, False), ("q4_0", True, True)]
)
def test_weights_are_not_in_memory_twice(wide_bundle, tmp_path, quant, asked, mapped):
    """llama.cpp rearranges 4-bit matrices into memory of its own: mapping the file too would double them."""
    from edge_mllm_export.write.gguf.quantise import QuantiseOptions, quantise_gguf

    path = wide_bundle.file("decoder_gguf")
    if quant != "f32":
        path = tmp_path / "decoder.gguf"
        quantise_gguf(wide_bundle.file("decoder_gguf"), path, quant, QuantiseOptions(threads=1))
    decoder = LlamaDecoder(path, wide_bundle.spec.decoder, DecoderSettings(threads=1, mmap=asked))
    try:
        decoder.prefill([Tokens(np.arange(4))])
        assert _mapped(path) is mapped
    finally:
        decoder.close()


def test_engine_is_the_bundles_first_that_is_installed(bundle, monkeypatch):
    import importlib.util

    assert choose_engine(bundle) == "onnx"
    assert choose_engine(bundle, "gguf") == "gguf"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert choose_engine(bundle) == "gguf"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissingError):
        choose_engine(bundle)


def test_unknown_engine(bundle):
    with pytest.raises(EngineError, match="onnx and gguf"):
        choose_engine(bundle, "tflite")


def test_llama_structures_have_every_field_we_set():
    """ctypes takes misspelt fields without a word."""
    import llama_cpp

    known = {name for name, *_ in llama_cpp.llama_batch._fields_}
    assert {"n_tokens", "token", "embd", "pos", "logits"} <= known
    assert {"n_gpu_layers", "load_mode"} <= {name for name, *_ in llama_cpp.llama_model_params._fields_}
    assert ctypes.sizeof(llama_cpp.llama_batch) > 0


@pytest.mark.parametrize(
    ("architecture", "flags", "overflow"),
    [
        ("x86_64", ("avx2", "fma"), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("AMD64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("x86_64", ("avx2", "avx512f", "amx_int8"), False),
        ("x86_64", (), False),
        ("aarch64", ("asimd", "asimddp"), False),
    ],
)
def test_unsigned_weights_only_where_products_overflow(architecture, flags, overflow):
    assert products_overflow(architecture, flags) == overflow
