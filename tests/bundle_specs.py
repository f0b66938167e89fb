"""Bundle specifications and whole tiny bundles for tests of the runtime, made without the export side."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from image_settings import Settings

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.bundle.files import write_spec
from edge_mllm.bundle.spec import SCHEMA_VERSION, BundleSpec, DecoderSpec, Part, PromptSpec, Source, TileLayout

TINY = Settings("tiny", longest_edge=128, tile=32, tokens=4)
N_EMBD = 16

LAYOUT = TileLayout(
    before_tile="<fake_token_around_image><row_{row}_col_{col}>",
    after_row="\n",
    before_global="\n<fake_token_around_image><global-img>",
    after_global="<fake_token_around_image>",
    before_single="<fake_token_around_image><global-img>",
    after_single="<fake_token_around_image>",
)


def make_spec(checkpoint: Path, settings: Settings = TINY, **changes: Any) -> BundleSpec:
    """The specification of a bundle with the tokenizer of a tiny checkpoint; no parts yet."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    spec = BundleSpec(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        source=Source(id="tiny", revision=None, sha256="0" * 64, licence="apache-2.0", family="tiny"),
        image=settings.image,
        vision=settings.vision,
        prompt=PromptSpec(
            image_token="<image>",
            image_token_id=tokenizer.token_to_id("<image>"),
            placeholder="<image>",
            layout=LAYOUT,
            stop_token_ids=(tokenizer.token_to_id("<end_of_utterance>"),),
            special_tokens={
                "bos_token": "<|im_start|>",
                "eos_token": "<end_of_utterance>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|im_end|>",
            },
        ),
        decoder=DecoderSpec(n_embd=N_EMBD, n_vocab=tokenizer.get_vocab_size(), n_layer=1, context_length=2048),
        parts={},
        recipe={"decoder": {"name": "f32"}, "vision": {"name": "fp32"}},
        verification={"pixels": {"max_abs_difference": 0.0}},
        created="2026-11-20T00:00:00Z",
        exporter={"edge-mllm": "0.1.0"},
    )
    return dataclasses.replace(spec, **changes)


def write_bundle(directory: Path, checkpoint: Path) -> Path:
    """A bundle whose vision part is a real tiny tower and whose decoder part is a placeholder nobody opens."""
    from tiny_models import SMOLVLM_TEMPLATE

    directory.mkdir(parents=True)
    shutil.copyfile(checkpoint / "tokenizer.json", directory / "tokenizer.json")
    (directory / "chat_template.jinja").write_text(SMOLVLM_TEMPLATE, encoding="utf-8")
    (directory / "decoder.gguf").write_bytes(b"GGUF" + bytes(1000))
    write_tower(directory / "vision.onnx")
    files = {
        "vision": "vision.onnx",
        "decoder_gguf": "decoder.gguf",
        "tokenizer": "tokenizer.json",
        "chat_template": "chat_template.jinja",
    }
    parts = {
        name: Part(
            file=file,
            sha256=sha256_of(directory / file),
            bytes=(directory / file).stat().st_size,
            precision="fp32",
        )
        for name, file in files.items()
    }
    write_spec(make_spec(checkpoint, parts=parts), directory / "bundle.json")
    return directory


def write_tower(
    path: Path,
    *,
    settings: Settings = TINY,
    n_embd: int = N_EMBD,
    names: tuple[str, str] = ("pixels", "embeddings"),
    tiles: int | str = "tiles",
    zero: bool = False,
) -> Path:
    """A tower of one linear layer over pooled patches: row t of the output depends on quarter t of the tile alone.

    ``zero`` divides by zero, so that every value is infinite.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    side, tokens = settings.tile, settings.tokens
    per_side = round(tokens**0.5)
    patch = side // per_side
    weight = np.random.default_rng(0).normal(size=(3, n_embd)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([0, 3, -1], np.int64), "flat"),
        numpy_helper.from_array(np.array(0.0 if zero else 1.0, np.float32), "divisor"),
    ]
    nodes = [
        helper.make_node("AveragePool", [names[0]], ["pooled"], kernel_shape=[patch, patch], strides=[patch, patch]),
        helper.make_node("Reshape", ["pooled", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "weight"], ["mapped"]),
        helper.make_node("Div", ["mapped", "divisor"], [names[1]]),
    ]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [tiles, 3, side, side])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [tiles, tokens, n_embd])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path
