"""The language model alone equals the one inside the checkpoint, and its ONNX graph does what its inputs say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import make_tiny_smolvlm

from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.write.onnx.decoder import write_decoder_onnx
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.recipe import find_recipe


def _write(source: Path, target: Path) -> Path:
    checkpoint = open_checkpoint(source)
    return write_text_checkpoint(checkpoint, find_family(checkpoint), target)


@pytest.mark.parametrize("fixture", ["tiny_smolvlm", "tiny_smolvlm_tied", "tiny_smolvlm2"])
def test_text_checkpoint_is_the_same_language_model(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    source = request.getfixturevalue(fixture)
    text = AutoModelForCausalLM.from_pretrained(_write(source, tmp_path / "text"), dtype=torch.float32)
    whole = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.equal(text(ids).logits, whole(ids).logits)
    stored = (tmp_path / "text" / "model.safetensors").read_bytes()
    header = json.loads(stored[8 : 8 + int.from_bytes(stored[:8], "little")])
    assert ("lm_head.weight" in header) == (fixture != "tiny_smolvlm_tied")


def test_a_head_that_differs_from_a_tied_table_is_kept(tiny_smolvlm: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_smolvlm.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    written = json.loads((_write(source, tmp_path / "text") / "config.json").read_text())
    assert written["tie_word_embeddings"] is False


def test_onnx_graph_gives_logits_for_the_last_rows_asked_for(tiny_bundle: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tiny_bundle / "decoder.onnx"))
    rows = np.load(tiny_bundle / "embeddings.npy")[np.arange(9)[None]].astype(np.float32)
    feed = {"inputs_embeds": rows, "attention_mask": np.ones((1, 9), np.int64)}
    for node in session.get_inputs():
        if node.name.startswith("past_key_values"):
            feed[node.name] = np.zeros((1, node.shape[1], 0, 16), np.float32)
    every, last = (session.run(["logits"], {**feed, "num_logits_to_keep": np.array([count])})[0] for count in (9, 2))
    assert every.shape[1] == 9
    assert last.shape[1] == 2
    np.testing.assert_allclose(last, every[:, -2:], rtol=0, atol=1e-5)


def test_a_layer_as_wide_as_the_vocabulary_is_refused(tmp_path: Path) -> None:
    """The builder would take it for the output head and write a wrong graph without a word."""
    source = make_tiny_smolvlm(tmp_path / "source", text={"intermediate_size": 523})
    text = _write(source, tmp_path / "text")
    (tmp_path / "out").mkdir()
    with pytest.raises(DecoderBuildError, match=r"gate_proj has as many outputs as the vocabulary.*`format='gguf'`"):
        write_decoder_onnx(text, tmp_path / "out", find_recipe("onnx"))
    assert list((tmp_path / "out").iterdir()) == []
