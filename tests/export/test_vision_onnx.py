"""The tower in ONNX against transformers, in every precision and with either attention operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edge_mllm.machine.ort import session_options
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.write.vision.attention import Attention
from edge_mllm_export.write.vision.tower import tower_samples, trace_tower, write_vision_onnx
from edge_mllm_quant.graph.files import save_graph
from edge_mllm_quant.recipes.recipe import find_recipe


def _reference(source: Path, pixels: torch.Tensor) -> np.ndarray:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32).eval()
    with torch.inference_mode():
        features = model.model.get_image_features(pixels[None]).pooler_output
    return torch.cat(list(features)).reshape(len(pixels), -1, features[0].shape[-1]).numpy()


def _run(path: Path, pixels: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), session_options(None))
    return session.run(["embeddings"], {"pixels": pixels.numpy()})[0]


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def _pixels(tile: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, tile, tile, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("fixture", "attention"), [("tiny_smolvlm", "onnx"), ("tiny_smolvlm2", "mha")])
def test_fp32_tower_is_the_models(
    fixture: str, attention: Attention, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(fixture)
    checkpoint = open_checkpoint(source)
    recipe = find_recipe("vision", "fp32")
    write_vision_onnx(checkpoint, find_family(checkpoint), tmp_path / "v.onnx", recipe, attention=attention)
    ours, theirs = _run(tmp_path / "v.onnx", _pixels()), _reference(source, _pixels())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
    np.testing.assert_allclose(_run(tmp_path / "v.onnx", _pixels()[:1]), theirs[:1], rtol=0, atol=2e-5)


def test_smaller_precisions_are_smaller_and_close(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    theirs = _reference(tiny_smolvlm, _pixels())
    sizes = {}
    family = find_family(checkpoint)
    samples = tower_samples(checkpoint, family, [draw_picture(90, 60, seed=1), draw_picture(50, 120, seed=2)])
    assert len(samples) > 4 and {sample["pixels"].shape for sample in samples} == {(1, 3, 32, 32)}
    for name, floor in (("fp32", 0.999999), ("fp16", 0.99999), ("int8", 0.995), ("int8_static", 0.99), ("int4", 0.97)):
        recipe = find_recipe("vision", name)
        written = write_vision_onnx(checkpoint, family, tmp_path / f"{name}.onnx", recipe, samples=samples)
        (path,) = written.files
        assert ("samples" in written.report) == name.startswith("int")
        sizes[name] = path.stat().st_size
        assert _cosines(_run(path, _pixels()), theirs).min() > floor
    assert sizes["fp16"] < 0.7 * sizes["fp32"]
    assert sizes["int8"] < 0.6 * sizes["fp32"]
    assert sizes["int4"] < sizes["int8"]
    assert sizes["int8_static"] < 1.2 * sizes["int8"]


def test_large_towers_keep_their_tensors_beside_the_graph(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    model = _trace(checkpoint)
    files = save_graph(model, tmp_path / "v.onnx", limit=1000)
    assert [path.name for path in files] == ["v.onnx", "v.onnx.data"]
    assert _cosines(_run(tmp_path / "v.onnx", _pixels()), _reference(tiny_smolvlm, _pixels())).min() > 0.999999


def _trace(checkpoint: Checkpoint) -> Any:
    return trace_tower(find_family(checkpoint).build_tower(checkpoint), (32, 32), "mha")
