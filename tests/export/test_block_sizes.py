"""4-bit ONNX decoders in blocks of 32, 64 and 128: what the name says stands in the graph, calibrated and as told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from export.test_plan_bytes import size_of, stored_bytes

from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_quant.weights.activations import Moments
from edge_mllm_quant.weights.nbits import LEVELS, NBitsNode, refine_matmul, search_scales


@pytest.mark.parametrize("block", [32, 64, 128])
def test_the_graph_has_the_blocks_of_its_name(block: int, tiny_smolvlm: Path, tmp_path: Path) -> None:
    """The builder ignores options that it does not know: the default's graph would come back without a word."""
    bundle, recipe = tmp_path / "x.edge", f"int4_b{block}"
    options = ExportOptions(format="onnx", quant=recipe, vision="fp32", verify=False, calibration=False)
    spec = export_bundle(str(tiny_smolvlm), bundle, options)
    assert spec.parts["decoder_onnx"].precision == recipe
    nodes = onnx.load_model(bundle / "decoder.onnx", load_external_data=False).graph.node
    found = [{item.name: item.i for item in node.attribute} for node in nodes if node.op_type == "MatMulNBits"]
    assert found and {(each["block_size"], each["bits"], each["accuracy_level"]) for each in found} == {(block, 4, 4)}
    table = (bundle / "embeddings.npy").stat().st_size
    assert size_of(facts_of_source(str(tiny_smolvlm)), "onnx", recipe) == stored_bytes(bundle / "decoder.onnx") + table


@pytest.mark.parametrize(("columns", "block"), [(128, 32), (160, 64), (160, 128), (96, 128)])
def test_calibrated_codes_are_nearer_in_full_and_in_padded_blocks(columns: int, block: int) -> None:
    """Rows whose last block has fewer weights; the padding is stored as zeros."""
    random = np.random.default_rng(columns + block)
    weights = random.normal(size=(48, columns)).astype(np.float32)
    inputs = (random.normal(size=(4000, columns)) @ random.normal(size=(columns, columns))).astype(np.float32)
    moments = Moments(rows=len(inputs), squares=(inputs**2).mean(0), products=inputs.T @ inputs / len(inputs))
    node = _rounded(weights, block)
    before = float(np.square(inputs @ (node.values() - weights).T).mean())
    refine_matmul(node, weights, moments)
    after = float(np.square(inputs @ (node.values() - weights).T).mean())
    assert after < 0.75 * before
    packed = onnx.numpy_helper.to_array(node.codes).reshape(48, -1)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(48, -1)
    assert codes.shape[1] == -(-columns // block) * block and (codes[:, columns:] == 8).all()


def _rounded(weights: np.ndarray, block: int) -> NBitsNode:
    """A node with codes that are rounded to the nearest."""
    rows, columns = weights.shape
    blocks = -(-columns // block)
    scales = search_scales(weights, np.ones(columns, np.float32), block)
    wide = np.repeat(scales, block, axis=1)
    padded = np.pad(weights, ((0, 0), (0, blocks * block - columns)))
    ratio = np.divide(padded, wide, out=np.zeros_like(padded), where=wide != 0)
    codes = (np.clip(np.round(ratio), LEVELS[0], LEVELS[-1]) + 8).astype(np.uint8)
    packed = (codes[:, 0::2] | (codes[:, 1::2] << 4)).reshape(rows, blocks, block // 2)
    tensors = (
        onnx.numpy_helper.from_array(values, name) for values, name in ((packed, "codes"), (scales.ravel(), "scales"))
    )
    return NBitsNode("node", 4, weights.shape, block, *tensors)
