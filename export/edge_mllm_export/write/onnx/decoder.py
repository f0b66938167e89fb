"""The language model to ONNX through onnxruntime-genai's model builder, and its embedding table to a .npy file."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.families.inventory import empty_causal_lm
from edge_mllm_export.families.text_config import DEEPSTACK
from edge_mllm_export.json_files import read_json
from edge_mllm_export.write.onnx.attention import attend_both_ways
from edge_mllm_export.write.onnx.builder import builder_source
from edge_mllm_export.write.onnx.cache import quantise_cache
from edge_mllm_export.write.onnx.deepstack import take_deepstack_rows
from edge_mllm_export.write.onnx.phone import phone_gaps
from edge_mllm_export.write.onnx.plain_rotary import use_plain_rotary
from edge_mllm_export.write.onnx.refine import check_weights, refine_decoder
from edge_mllm_export.write.onnx.rotary import write_rotary_tables
from edge_mllm_quant.tower.half_storage import store_half

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from edge_mllm.arrays import FloatArray
    from edge_mllm.bundle.spec import ImageAttention
    from edge_mllm_quant.recipes.recipe import Recipe
    from edge_mllm_quant.weights.activations import Moments

LOGGER = logging.getLogger(__name__)
GRAPH, DATA, EMBEDDINGS = "decoder.onnx", "decoder.onnx.data", "embeddings.npy"
KEEP_INPUT = "num_logits_to_keep"
WORKER = Path(__file__).with_name("builder_worker.py")
"""The script of the child process."""
_ROTARY = ("cos_cache", "sin_cache")
_EMBEDDING_TENSOR = "model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What the ONNX decoder weighs."""

    bytes: int
    """Graph and weights, without the embedding table."""
    tensor_bytes: int
    """Stored constants, without the table of rotary angles."""
    weights: int
    """Values of the checkpoint that they stand for (the head included, the embedding table not)."""
    embedding_bytes: int
    phone_gaps: tuple[str, ...] = ()
    """What the ONNX Runtime of phones lacks for it, see :mod:`edge_mllm_export.write.onnx.phone`."""

    @property
    def bits_per_weight(self) -> float:
        """True bits per weight, scales and norms included."""
        return self.tensor_bytes * 8 / self.weights


def write_decoder_onnx(
    text_dir: Path,
    out_dir: Path,
    recipe: Recipe,
    *,
    moments: Mapping[str, Moments] | None = None,
    image_attention: ImageAttention = "causal",
    cache_peaks: Mapping[int, tuple[FloatArray, FloatArray]] | None = None,
) -> OnnxReport:
    """Write ``decoder.onnx``, ``decoder.onnx.data`` and ``embeddings.npy`` into ``out_dir``.

    The graph takes ``inputs_embeds`` [1, n, n_embd], ``attention_mask`` [1, past + n] and the KV cache; a further input
    ``num_logits_to_keep`` int64 [1] says for how many of the last positions ``logits`` are wanted, so that a prefill
    multiplies one row with the head and a verification all of them. Where the first layers take rows of their own,
    ``inputs_embeds`` is wider, see :mod:`edge_mllm_export.write.onnx.deepstack`.

    Args:
        text_dir: A plain causal LM directory.
        out_dir: Where the files go.
        recipe: One of the ONNX decoder's.
        moments: Second moments of the layers' inputs; 4-bit matrices are then quantised again to suit them.
        image_attention: Whether the tokens of a picture see each other in both directions; then the graph has a further
            input, see :mod:`edge_mllm_export.write.onnx.attention`.
        cache_peaks: Layer -> how far keys and values go; the cache is then kept in 8 bits.

    Raises:
        DecoderBuildError: The builder failed, would take another layer for the output head, or wrote other weights.
    """
    _refuse_ambiguous_head(text_dir)
    with TemporaryDirectory(prefix="edge-mllm-", dir=out_dir) as scratch:
        built = Path(scratch) / "built"
        _run_builder(builder_source(text_dir, Path(scratch)), built, Path(scratch) / "cache", recipe)
        model = _load_graph(built / GRAPH)
        config = read_json(text_dir / "config.json")
        check_weights(model, text_dir)
        write_rotary_tables(model, config)
        use_plain_rotary(model)
        if config.get(DEEPSTACK):
            take_deepstack_rows(model, config[DEEPSTACK])
        if image_attention == "bidirectional":
            attend_both_ways(model)
        if moments:
            refine_decoder(model, text_dir, moments)
        if cache_peaks is not None:
            quantise_cache(model, cache_peaks)
        size, tensors = _finish_graph(model, out_dir, halve_scales=recipe.half_scales)
        gaps = phone_gaps(model)
    table = write_embeddings(text_dir, out_dir / EMBEDDINGS, dtype=recipe.embeddings)
    weights = _stored_weights(text_dir)
    return OnnxReport(bytes=size, tensor_bytes=tensors, weights=weights, embedding_bytes=table, phone_gaps=gaps)


def _refuse_ambiguous_head(text_dir: Path) -> None:
    """The builder takes every linear layer with as many outputs as the vocabulary has tokens for the head."""
    import torch

    config = read_json(text_dir / "config.json")
    model = empty_causal_lm(config)
    head = model.get_output_embeddings()
    wide = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and module.out_features == config["vocab_size"]
    ]
    if wide:
        raise DecoderBuildError(
            f"{wide[0]} has as many outputs as the vocabulary has tokens ({config['vocab_size']}), so "
            "onnxruntime-genai cannot tell it from the output head; use `format='gguf'`"
        )


def _run_builder(text_dir: Path, built: Path, cache: Path, recipe: Recipe) -> None:
    """Run the builder in a process of its own: it prints, changes sys.path and keeps the whole model in memory."""
    # A sliding layer's cache would else be a ring as long as the window, which cannot be cut back to a position before.
    options = {"exclude_embeds": "true", "filename": GRAPH, "windowed_kv_cache": "false", **recipe.builder_options}
    # -P: the folder of the worker must not come first in the search path of the child.
    command = [sys.executable, "-P", str(WORKER), "-i", str(text_dir), "-o", str(built)]
    command += ["-p", recipe.builder_precision, "-e", "cpu", "-c", str(cache), "--extra_options"]
    command += [f"{key}={value}" for key, value in options.items()]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    LOGGER.debug("%s", done.stdout)
    if done.returncode or not (built / GRAPH).is_file():
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no message"]
        LOGGER.debug("%s", done.stderr)
        raise DecoderBuildError(f"onnxruntime-genai's model builder failed: {last[0].strip()}")


def _load_graph(built: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load_model(built)


def _finish_graph(model: onnx.ModelProto, out_dir: Path, *, halve_scales: bool) -> tuple[int, int]:
    """Add the input that chooses rows, halve the scales, and write graph and weights.

    Returns:
        Bytes of the files, and of the weights in them.
    """
    import onnx

    keep_last_rows(model)
    if halve_scales:
        store_half(model, choose=_is_block_scale)
    del model.metadata_props[:]
    model.producer_version = model.producer_version.partition("+")[0]  # the builder adds the commit it is run in
    weights = [tensor for tensor in model.graph.initializer if not tensor.name.startswith(_ROTARY)]
    tensor_bytes = sum(tensor.ByteSize() for tensor in weights)
    target = out_dir / GRAPH
    onnx.save_model(model, target, save_as_external_data=True, location=DATA, size_threshold=1024)
    return target.stat().st_size + (out_dir / DATA).stat().st_size, tensor_bytes


def _is_block_scale(name: str) -> bool:
    return name.endswith(("_scales", ".scales"))


def keep_last_rows(model: Any) -> None:
    """Multiply only the last ``num_logits_to_keep`` positions with the output head, in place."""
    from onnx import TensorProto, helper

    graph = model.graph
    head = next(node for node in graph.node if node.name.startswith("/lm_head/MatMul"))
    rows = helper.make_tensor_value_info(KEEP_INPUT, TensorProto.INT64, [1])
    graph.input.append(rows)
    graph.initializer.extend(
        [
            helper.make_tensor("/lm_head/keep/end", TensorProto.INT64, [1], [2**63 - 1]),
            helper.make_tensor("/lm_head/keep/axis", TensorProto.INT64, [1], [1]),
        ]
    )
    states = head.input[0]
    start = helper.make_node("Neg", [KEEP_INPUT], ["/lm_head/keep/start"], name="/lm_head/keep/Neg")
    inputs = [states, "/lm_head/keep/start", "/lm_head/keep/end", "/lm_head/keep/axis"]
    cut = helper.make_node("Slice", inputs, ["/lm_head/keep/output_0"], name="/lm_head/keep/Slice")
    head.input[0] = "/lm_head/keep/output_0"
    position = list(graph.node).index(head)
    graph.node.insert(position, cut)
    graph.node.insert(position, start)
    for value in graph.output:
        if value.name == "logits":
            value.type.tensor_type.shape.dim[1].dim_param = KEEP_INPUT
    kept = [value for value in graph.value_info if value.name not in {"logits", *head.output}]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def write_embeddings(text_dir: Path, out: Path, *, dtype: str) -> int:
    """Write the token embedding table as a .npy file [n_vocab, n_embd], block by block; return its bytes."""
    import numpy as np
    import torch
    from safetensors import safe_open

    block = 4096
    with safe_open(text_dir / "model.safetensors", framework="pt") as tensors:
        rows = tensors.get_slice(_EMBEDDING_TENSOR)
        count, width = rows.get_shape()
        table = np.lib.format.open_memmap(out, mode="w+", dtype=np.dtype(dtype), shape=(count, width))
        for start in range(0, count, block):
            table[start : start + block] = rows[start : start + block].to(torch.float32).numpy()
        table.flush()
        del table
    return out.stat().st_size


def _stored_weights(text_dir: Path) -> int:
    """Values the decoder file stores: every tensor but the table, and the head even when it is tied to the table."""
    from safetensors import safe_open

    config = read_json(text_dir / "config.json")
    total = 0
    with safe_open(text_dir / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
            shape = tensors.get_slice(name).get_shape()
            values = 1
            for side in shape:
                values *= side
            if name != _EMBEDDING_TENSOR or config["tie_word_embeddings"]:
                total += values
    return total
