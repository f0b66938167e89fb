"""A plain Hugging Face causal language model directory as ``decoder.gguf``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_export.checkpoint.tensor_store import SINGLE, TensorInfo, read_inventory, read_tensor
from edge_mllm_export.errors import RecipeError, TensorsError
from edge_mllm_export.gguf.file import GgufTensor, GgufType, gguf_library, write_gguf
from edge_mllm_export.gguf.header import read_entries
from edge_mllm_export.json_files import read_json
from edge_mllm_export.tokenizer.gguf_vocabulary import Vocabulary, read_vocabulary
from edge_mllm_export.write.gguf.backbones import Backbone, check_backbone, find_backbone
from edge_mllm_export.write.gguf.quantise import RECIPE_TYPES, QuantiseOptions, quantise_gguf
from edge_mllm_export.write.gguf.refine import gguf_names, refine_gguf
from edge_mllm_export.write.gguf.report import GgufReport, read_report
from edge_mllm_export.write.gguf.rotary import interleave_rotary
from edge_mllm_export.write.gguf.text_config import TextConfig
from edge_mllm_quant.recipes.override import OverrideError, pattern_of

if TYPE_CHECKING:
    import gguf

_DIRECT: dict[str, GgufType] = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
_STORED: dict[str, GgufType] = {"BF16": "BF16", "F16": "F16"}
"""safetensors type -> the GGUF type that holds it without loss; all others go through float32."""
_UNUSED_SUFFIXES = (".rotary_emb.inv_freq",)


def write_decoder_gguf(
    text_dir: Path, out: Path, recipe: str, *, name: str, options: QuantiseOptions | None = None
) -> GgufReport:
    """Write a language model as GGUF.

    Args:
        text_dir: config.json, ``*.safetensors``, tokenizer.json and its companions.
        out: the file to write.
        recipe: ``f32``, ``f16`` or ``bf16`` (written directly), or a quantisation of llama.cpp such as ``q8_0``,
            ``q4_0``, ``iq4_nl`` or ``q4_k_m`` (made by llama.cpp's own quantiser from the weights as they are stored).
        name: ``general.name`` of the file.
        options: the output head's type, types of single tensors, importance matrix; for quantisations only.

    Returns:
        Size, true bits per weight and the tensors that could not have the type that was asked for.

    Raises:
        RecipeError: there is no such recipe.
        CheckpointError: config.json, tokenizer.json or the weights do not fit together or have no equal in llama.cpp.
        GgufError: the values of a tensor do not fit its type.
        EngineError: llama.cpp's quantiser failed.
        ExtraMissingError: gguf, or for quantisations llama-cpp-python, is not installed.
    """
    if recipe in _DIRECT:
        _write_plain(text_dir, out, name, _DIRECT[recipe])
        return read_report(out, recipe)
    if recipe not in RECIPE_TYPES:
        raise RecipeError(recipe, (*_DIRECT, *RECIPE_TYPES))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".gguf-") as scratch:
        plain = Path(scratch) / "plain.gguf"
        _write_plain(text_dir, plain, name, None)
        fallbacks = _quantise(text_dir, plain, out, recipe, options or QuantiseOptions())
    return read_report(out, recipe, fallbacks)


def _quantise(
    text_dir: Path, plain: Path, out: Path, recipe: str, options: QuantiseOptions
) -> tuple[tuple[str, str], ...]:
    """llama.cpp's quantiser; with moments of the layers' inputs also weighted and refined by them."""
    present = read_entries(plain)
    for pattern, kind in options.tensors.items():
        if not any(re.search(pattern, name) for name in present):
            typed = f"{pattern_of(pattern)}={kind}"
            raise OverrideError(typed, "no tensor of the decoder has such a name, as blk.0.ffn_down has")
    if not options.moments:
        return quantise_gguf(plain, out, recipe, options)
    config = TextConfig(read_json(text_dir / "config.json"))
    tied = "output.weight" not in present
    layers = int(config.need("num_hidden_layers"))
    named = gguf_names(options.moments, find_backbone(config).arch, layers=layers, tied=tied)
    squares = {name: value.squares for name, value in named.items()}
    fallbacks = quantise_gguf(plain, out, recipe, replace(options, imatrix={**squares, **options.imatrix}))
    refine_gguf(plain, out, named)
    return fallbacks


def _write_plain(text_dir: Path, out: Path, name: str, dtype: GgufType | None) -> None:
    config = TextConfig(read_json(text_dir / "config.json"))
    backbone = check_backbone(config)
    vocabulary = read_vocabulary(text_dir, config.need("vocab_size"))
    weights = read_inventory(text_dir, config.need("model_type"))
    tensors = list(_tensors(backbone, config, weights, dtype))
    _check_complete(config, tensors)
    fields = partial(_fields, backbone=backbone, config=config, vocabulary=vocabulary, name=name, tensors=tensors)
    write_gguf(out, backbone.arch, fields, tensors)


def _fields(
    writer: gguf.GGUFWriter,
    *,
    backbone: Backbone,
    config: TextConfig,
    vocabulary: Vocabulary,
    name: str,
    tensors: list[GgufTensor],
) -> None:
    library = gguf_library()
    total = sum(prod(tensor.shape) for tensor in tensors)
    writer.add_type(library.GGUFType.MODEL)
    writer.add_name(vocabulary.model_name(name))
    writer.add_size_label(library.size_label(total, total, 0, 0))
    for keys in backbone.keys:
        keys(writer, config)
    writer.add_file_type(_file_type(tensors))
    writer.add_quantization_version(library.GGML_QUANT_VERSION)
    vocabulary.add_to(writer)


def _file_type(tensors: list[GgufTensor]) -> int:
    """llama.cpp's file type number: that of the matrices."""
    kinds = gguf_library().LlamaFileType
    by_type = {"F16": kinds.MOSTLY_F16, "BF16": kinds.MOSTLY_BF16, "F32": kinds.ALL_F32}
    matrices = [tensor.dtype for tensor in tensors if len(tensor.shape) > 1]
    return int(by_type[max(set(matrices), key=matrices.count)])


def _tensors(
    backbone: Backbone, config: TextConfig, weights: Mapping[str, TensorInfo], dtype: GgufType | None
) -> Iterator[GgufTensor]:
    library = gguf_library()
    arch = next(key for key, value in library.MODEL_ARCH_NAMES.items() if value == backbone.arch)
    names = library.get_tensor_name_map(arch, config.need("num_hidden_layers"))
    unknown = []
    for source in sorted(weights, key=_layer_order):
        if source.endswith(_UNUSED_SUFFIXES) or (config.get("tie_word_embeddings") and source == "lm_head.weight"):
            continue
        target = names.get_name(backbone.stored_name(source), try_suffixes=(".weight", ".bias"))
        if target is None:
            unknown.append(source)
            continue
        info = weights[source]
        shape = backbone.stored_shape(source, info.shape)
        kind = "F32" if _stays_float(target, shape) else dtype or _STORED.get(info.dtype, "F32")
        yield GgufTensor(target, shape, kind, partial(_load, backbone, config, source, info))
    if unknown:
        raise TensorsError(SINGLE, left_over=unknown)
    for target, values in backbone.computed(config).items():
        yield GgufTensor(target, values.shape, "F32", partial(np.array, values))


def _stays_float(target: str, shape: tuple[int, ...]) -> bool:
    """llama.cpp computes with norms, vectors and convolutions over time in float32 only."""
    return len(shape) < 2 or target.endswith(("_norm.weight", "ssm_conv1d.weight"))


def _layer_order(name: str) -> tuple[int, str]:
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return (numbers[0] if numbers else -1, name)


def _load(backbone: Backbone, config: TextConfig, name: str, info: TensorInfo) -> FloatArray:
    import torch

    values: FloatArray = read_tensor(info).to(torch.float32).numpy()
    if backbone.norm_shift and name.endswith("norm.weight"):
        return values + np.float32(backbone.norm_shift)
    if backbone.interleaved_rotary and ".q_proj." in name:
        return interleave_rotary(values, config.need("num_attention_heads"))
    if backbone.interleaved_rotary and ".k_proj." in name:
        return interleave_rotary(values, config.kv_heads)
    return backbone.stored_values(config, name, values)


def _check_complete(config: TextConfig, tensors: list[GgufTensor]) -> None:
    """Every layer has what any of its kind has; table and head are there, the table in the configured shape."""
    found = {tensor.name: tensor.shape for tensor in tensors}
    needed = ["token_embd.weight", "output_norm.weight"]
    needed += [] if config.get("tie_word_embeddings") else ["output.weight"]
    layers = range(int(config.need("num_hidden_layers")))
    kinds = dict(enumerate(config.get("layer_types", ())))
    parts: dict[str | None, set[str]] = {}
    for name in (name for name in found if name.startswith("blk.")):
        _, layer, part = name.split(".", 2)
        parts.setdefault(kinds.get(int(layer)), set()).add(part)
    anything = {"attn_norm.weight"}
    needed += [f"blk.{layer}.{part}" for layer in layers for part in sorted(parts.get(kinds.get(layer), anything))]
    missing = [name for name in needed if name not in found]
    expected = (config.need("vocab_size"), config.need("hidden_size"))
    tables = [name for name in ("token_embd.weight", "output.weight") if found.get(name, expected) != expected]
    if missing or tables:
        raise TensorsError(SINGLE, missing=missing, wrong=tables)
