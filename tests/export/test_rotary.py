"""Every kind of rotary scaling with every language model: torch's logits from both engines, or a refusal by field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_text_models import CASES, COMMON, Case, make

from edge_mllm.bundle.spec import DecoderSpec, ImageAttention
from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.rotary import trained_length, within_trained_length
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.onnx.decoder import EMBEDDINGS, GRAPH, write_decoder_onnx
from edge_mllm_export.write.onnx.rotary import write_rotary_tables
from edge_mllm_quant.recipes.recipe import find_recipe

LENGTH = 60
SHORT = [1.0 + 0.1 * number for number in range(8)]
SCALINGS: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "type": "dynamic", "factor": 2.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
    "yarn-scaled": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 40,
        "attention_factor": 1.05,
    },
    "yarn-betas": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 40,
        "beta_fast": 16.0,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 40,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": SHORT,
        "long_factor": [2 * factor for factor in SHORT],
        "original_max_position_embeddings": 64,
    },
}
MODELS = {
    "llama": Case("llama"),
    "qwen2": Case("qwen2"),
    "qwen3": Case("qwen3", {"head_dim": 16}),
    "phi": replace(CASES["phi2"], fields=CASES["phi2"].fields | {"num_attention_heads": 2, "num_key_value_heads": 2}),
    "phi3": Case("phi3", {"original_max_position_embeddings": 64}),
    "gemma": CASES["gemma"],
    "gemma3": CASES["gemma3"],
    "qwen2-vl": CASES["qwen2-vl"],
}
UNKNOWN_TO_TRANSFORMERS = {("phi3", kind) for kind in SCALINGS if kind != "longrope"}
"""Its configuration refuses all but one kind."""
ONNX_ALONE = {
    "llama3": ("qwen2", "qwen3", "phi", "gemma", "gemma3", "qwen2-vl"),
    "longrope": ("qwen2", "qwen3", "phi", "gemma", "gemma3", "qwen2-vl"),
    "yarn": ("gemma3",),
    "yarn-scaled": ("gemma3",),
    "yarn-betas": tuple(MODELS),
}
"""Scaling -> language models for which llama.cpp computes it otherwise or not at all."""
PAIRS = [(model, kind) for model in MODELS for kind in SCALINGS if (model, kind) not in UNKNOWN_TO_TRANSFORMERS]


def scaled(model: str, kind: str) -> Case:
    """A tiny model with this scaling, as its config.json would have it."""
    case = MODELS[model]
    scaling = dict(SCALINGS[kind])
    if "short_factor" in scaling:
        pairs = _pairs(case)
        scaling |= {name: (scaling[name] * 4)[:pairs] for name in ("short_factor", "long_factor")}
    given = case.fields.get("rope_parameters", {})
    if model == "gemma3":
        full = {"rope_theta": 1e6, **scaling}
        rope: dict[str, Any] = given | {"full_attention": full}
    else:
        rope = {"rope_theta": 1e4} | given | scaling
    return Case(case.model_type, case.fields | {"rope_parameters": rope}, case.tolerance, case.mrope)


def _pairs(case: Case) -> int:
    fields = COMMON | case.fields
    width = fields.get("head_dim", fields["hidden_size"] // fields["num_attention_heads"])
    return int(width * case.fields.get("rope_parameters", {}).get("partial_rotary_factor", 1.0)) // 2


def expected_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        found: np.ndarray = model(input_ids=torch.tensor(ids)[None]).logits[0].numpy()
    return found


def write_model(case: Case, directory: Path, tokenizer: Path) -> Any:
    """The model as it is, and config.json as the export writes it for decoder writers."""
    model = make(case, directory, tokenizer)
    path = directory / "config.json"
    path.write_text(json.dumps(within_trained_length(json.loads(path.read_text()))))
    return model


def _attention(case: Case) -> ImageAttention:
    return "bidirectional" if case.model_type == "gemma3_text" else "causal"


def spec_of(case: Case) -> DecoderSpec:
    fields = {**COMMON, **case.fields}
    width = fields.get("head_dim", fields["hidden_size"] // fields["num_attention_heads"])
    return DecoderSpec(
        n_embd=fields["hidden_size"],
        n_vocab=fields["vocab_size"],
        n_layer=fields["num_hidden_layers"],
        context_length=64,
        head_dim=width,
        embedding_scale=8.0 if case.model_type == "gemma3_text" else 1.0,
        image_attention=_attention(case),
        positions="mrope" if case.mrope else "sequential",
        mrope_sections=(2, 3, 3) if case.mrope else (),
    )


@pytest.mark.parametrize(("model", "kind"), PAIRS)
def test_llama_cpp_computes_torchs_logits_or_the_field_is_named(
    model: str, kind: str, tiny_smolvlm: Path, tmp_path: Path
) -> None:
    case = scaled(model, kind)
    torch_model = write_model(case, tmp_path / "model", tiny_smolvlm)
    if model in ONNX_ALONE.get(kind, ()):
        with pytest.raises(CheckpointError, match=r"rope_scaling.*`format='onnx'`"):
            write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name="m")
        return
    write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name="m")
    ids = np.random.default_rng(0).integers(0, COMMON["vocab_size"], LENGTH)
    settings = DecoderSettings(threads=1, kv_type="f32", flash_attention=False)
    decoder = LlamaDecoder(tmp_path / "decoder.gguf", spec_of(case), settings)
    found = decoder.prefill([Tokens(ids)], all_logits=True)
    decoder.close()
    expected = expected_logits(torch_model, ids)
    assert np.abs(found - expected).max() < case.tolerance


@pytest.fixture(scope="module", params=["llama", "phi", "phi3", "gemma3", "qwen2-vl"])
def built(request: pytest.FixtureRequest, tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model and its folder, with the decoder as the builder makes it: of every kind of scaling the same."""
    kind = next(kind for kind in SCALINGS if (request.param, kind) in PAIRS)
    home = tmp_path_factory.mktemp("rotary")
    case = scaled(request.param, kind)
    write_model(case, home / "model", tiny_smolvlm)
    write_decoder_onnx(home / "model", home, find_recipe("onnx", "f32"), image_attention=_attention(case))
    return request.param, home


def test_onnx_decoder_computes_torchs_logits_with_every_scaling(
    built: tuple[str, Path], tiny_smolvlm: Path, tmp_path: Path
) -> None:
    import onnx

    model, home = built
    ids = np.random.default_rng(0).integers(0, COMMON["vocab_size"], LENGTH)
    unscaled = None
    for kind in (kind for kind in SCALINGS if (model, kind) in PAIRS):
        case = scaled(model, kind)
        expected = expected_logits(write_model(case, tmp_path / kind, tiny_smolvlm), ids)
        graph = onnx.load_model(home / GRAPH)
        write_rotary_tables(graph, json.loads((tmp_path / kind / "config.json").read_text()))
        onnx.save_model(graph, tmp_path / kind / GRAPH)
        spec, settings = spec_of(case), DecoderSettings(threads=1)
        decoder = OrtDecoder(tmp_path / kind / GRAPH, home / EMBEDDINGS, spec, settings)
        found = decoder.prefill([Tokens(ids)], all_logits=True)
        assert np.abs(found - expected).max() < 1e-3, kind
        unscaled = found if kind == "dynamic" else unscaled
        assert unscaled is None or kind == "dynamic" or np.abs(found - unscaled).max() > 0.05, kind


@pytest.mark.parametrize(("kind", "length"), [("linear", 512), ("dynamic", 512), ("yarn", 512), ("longrope", 64)])
def test_the_context_ends_where_frequencies_change(kind: str, length: int) -> None:
    config = {"max_position_embeddings": 512, "rope_parameters": {"rope_theta": 1e4, **SCALINGS[kind]}}
    assert trained_length(config) == length
    assert within_trained_length(config)["max_position_embeddings"] == length


def test_an_unknown_scaling_is_named() -> None:
    config = {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "spiral"}}
    with pytest.raises(CheckpointError, match=r"text_config.rope_scaling.rope_type: is 'spiral', known: default"):
        within_trained_length(config)
