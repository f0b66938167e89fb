"""What our decode loops add to the engines' own: tokens per second on the same files, in turns.

    python benchmarks/decode_loop.py --bundle build/peers/smolvlm-500m/model.edge

GGUF: ``Model.generate`` (sampling, stop checks, text) against a bare loop of ``llama_decode`` that samples nothing,
which is what ``llama-bench`` measures. ONNX: ``Model.generate`` against onnxruntime-genai on the same graph and
weights; the graph gets the lookup of token embeddings in front, because genai starts from token ids. Both sides hold
the same number of tokens when they start. Medians and ratios go to benchmarks/results/decode_loop.json.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rounds import circumstances, in_turns, measuring

import edge_mllm
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.machine.llama import library, load_model
from edge_mllm.session.files import open_bundle

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "Tell me what is written on the sign next to the door and how many people are there in front of it. " * 4
Loop = Callable[[], float]
"""Runs once and returns tokens per second."""


class OwnLoop:
    """``Model.generate`` on one engine."""

    def __init__(self, bundle: Path, engine: str, threads: int, tokens: int) -> None:
        self.model = edge_mllm.load(bundle, engine=engine, threads=threads)
        self.tokens, self.prompt_ids = tokens, self.model.prompt_ids(PROMPT)

    def __call__(self) -> float:
        """One answer."""
        answer = self.model.generate(PROMPT, max_new_tokens=self.tokens, ignore_eos=True)
        return answer.timings.decode_tps


class LlamaLoop:
    """``llama_decode`` and nothing else."""

    def __init__(self, bundle: Path, threads: int, ids: Any, tokens: int) -> None:
        self.api, self.ids, self.tokens = library().api, np.asarray(ids, np.int32), tokens
        self.handle = load_model(open_bundle(bundle, check_hashes=False).file("decoder_gguf"), mmap=True)
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx = -(-(len(ids) + tokens) // 256) * 256
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = self.api.llama_init_from_model(self.handle, parameters)

    def __call__(self) -> float:
        """One answer."""
        api = self.api
        api.llama_memory_clear(api.llama_get_memory(self.context), False)
        for start in range(0, len(self.ids), 512):
            self._decode(np.ascontiguousarray(self.ids[start : start + 512]))
        one = np.array([self.ids[0]], np.int32)
        start_s = time.perf_counter()
        for _ in range(self.tokens - 1):
            self._decode(one)
        return (self.tokens - 1) / (time.perf_counter() - start_s)

    def _decode(self, ids: Any) -> None:
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(pointer, len(ids))) != 0:
            raise RuntimeError("llama.cpp failed to decode")
        self.api.llama_synchronize(self.context)


class GenaiLoop:
    """onnxruntime-genai on our graph."""

    def __init__(self, directory: Path, threads: int, ids: Any, tokens: int) -> None:
        import onnxruntime_genai as genai

        self.genai, self.ids, self.tokens = genai, np.asarray(ids, np.int32), tokens
        config = genai.Config(str(directory))
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        self.model = genai.Model(config)

    def __call__(self) -> float:
        """One answer."""
        length = len(self.ids) + self.tokens
        parameters = self.genai.GeneratorParams(self.model)
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = self.genai.Generator(self.model, parameters)
        generator.append_tokens(self.ids[None])
        generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(self.tokens - 1):
            generator.generate_next_token()
        return (self.tokens - 1) / (time.perf_counter() - start)


def write_genai_model(bundle: Path, out: Path) -> Path:
    """Our decoder.onnx with the embedding lookup in front, and the configuration genai wants."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    opened = open_bundle(bundle, check_hashes=False)
    model = onnx.load_model(opened.file("decoder_onnx"))
    graph = model.graph
    table = np.load(opened.file("embeddings"), mmap_mode="r")
    kept = [value for value in graph.input if value.name not in ("inputs_embeds", "num_logits_to_keep")]
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]), *kept])
    graph.initializer.append(numpy_helper.from_array(np.asarray(table), "token_table"))
    # genai takes the last row itself; our graph would otherwise ask for the number of rows.
    graph.initializer.append(numpy_helper.from_array(np.array([1 << 30], np.int64), "num_logits_to_keep"))
    gather = helper.make_node("Gather", ["token_table", "input_ids"], ["token_rows"], name="/token_table")
    cast = helper.make_node("Cast", ["token_rows"], ["inputs_embeds"], name="/token_rows", to=TensorProto.FLOAT)
    graph.node.insert(0, cast)
    graph.node.insert(0, gather)
    for value in graph.output:
        if value.name == "logits":
            value.type.tensor_type.shape.dim[1].dim_param = "sequence"
    onnx.save_model(model, out / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    (out / "genai_config.json").write_text(json.dumps(_genai_config(opened.spec.decoder, model)))
    return out


def _genai_config(spec: DecoderSpec, model: Any) -> dict[str, Any]:
    caches = [value for value in model.graph.input if value.name.endswith(".key")]
    sides = caches[0].type.tensor_type.shape.dim
    heads, width = sides[1].dim_value, sides[3].dim_value or spec.head_dim or 0
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "model.onnx",
        "head_size": width,
        "hidden_size": spec.n_embd,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": spec.n_embd // width,
        "num_hidden_layers": len(caches),
        "num_key_value_heads": heads,
    }
    described = {
        "type": "llama",
        "vocab_size": spec.n_vocab,
        "context_length": spec.context_length,
        "bos_token_id": 1,
        "eos_token_id": spec.n_vocab - 1,
        "pad_token_id": 0,
        "decoder": decoder,
    }
    return {"model": described, "search": {"max_length": spec.context_length, "past_present_share_buffer": True}}


def main() -> None:
    """Measure in turns, write, print."""
    parser = measuring(__file__, __doc__, repeat=7)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    spec = open_bundle(given.bundle, check_hashes=False).spec
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        pairs: dict[str, tuple[OwnLoop, Loop]] = {}
        for engine in spec.engines:
            own = OwnLoop(given.bundle, engine, given.threads, given.tokens)
            ids = own.prompt_ids
            if engine == "gguf":
                pairs["llama.cpp"] = (own, LlamaLoop(given.bundle, given.threads, ids, given.tokens))
            else:
                directory = write_genai_model(given.bundle, Path(scratch))
                pairs["onnxruntime-genai"] = (own, GenaiLoop(directory, given.threads, ids, given.tokens))
        found = {name: measure(pair, given.repeat) for name, pair in pairs.items()}
    result = {
        "schema": "edge-mllm-decode-loop/1",
        **circumstances(given.bundle, threads=given.threads, repeat=given.repeat),
        "prompt_tokens": len(ids),
        "answer_tokens": given.tokens,
        "against": found,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, numbers in found.items():
        print(f"{name}: {numbers['theirs_tps']:.1f} tok/s, ours {numbers['ours_tps']:.1f}: {numbers['ratio']:.3f}")


def measure(pair: tuple[Loop, Loop], repeat: int) -> dict[str, Any]:
    """Our loop and the engine's own."""
    samples = in_turns(dict(zip(("ours", "theirs"), pair, strict=True)), repeat)
    ours, theirs = (statistics.median(values) for values in samples.values())
    return {"ours_tps": ours, "theirs_tps": theirs, "ratio": ours / theirs, "samples": samples}


if __name__ == "__main__":
    main()
