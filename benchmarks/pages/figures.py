"""Numbers for sentences: each has a name, the result file it comes from, how it is read there and how it is written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "benchmarks/results"

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number."""

    file: str
    """Result file, from the repository's root."""
    read: Callable[[Found], float]
    """The value in the file's unit times what the form expects."""
    form: str
    """Format specification."""

    def text(self) -> str:
        """What the page says."""
        return format(self.read(_result(self.file)), self.form)


@functools.cache
def _result(file: str) -> Found:
    found: Found = json.loads((ROOT / file).read_text())
    return found


def number(name: str) -> str:
    """The text of a figure.

    Raises:
        KeyError: There is none of this name.
    """
    return FIGURES[name].text()


def _decided(engine: str, case: str) -> Figure:
    """What ten decisions about a picture take of the time to the first token of an answer about one."""

    def read(found: Found) -> float:
        return float(found["engines"][engine][case]["share_of_first_token"])

    return _result_file("decide", read, ".2f")


def _peers(shape: str, key: str, ours: str, theirs: str) -> Figure:
    """What ours takes of what theirs takes."""

    def read(found: Found) -> float:
        peers = found["peers"]
        return float(peers[ours]["medians"][key] / peers[theirs]["medians"][key])

    return Figure(file=f"{RESULTS}/peers_{shape}.json", read=read, form=".2f")


def _result_file(name: str, read: Callable[[Found], float], form: str) -> Figure:
    return Figure(file=f"{RESULTS}/{name}.json", read=read, form=form)


def _prompt_speed(length: str) -> Figure:
    def read(found: Found) -> float:
        seconds = found["speed"]["median_s"][length]
        return float(seconds["without"] / seconds["with, runs of 512"])

    return _result_file("prompt_weights", read, ".1f")


def _decoding(shape: str, way: str) -> Figure:
    return _result_file("block_sizes", lambda found: found["speed"][shape][way]["share"], ".2f")


def _block_loss(recipe: str, read: Callable[[Found], float], form: str) -> Figure:
    return _result_file("block_sizes", lambda found: read(found["loss"][recipe]), form)


def _reduced(method: str) -> Figure:
    return _result_file(
        "reduction", lambda found: 100 * found["accuracy"]["settings"][method]["accuracy"]["overall"]["right"], ".1f"
    )


def _reduced_prefill(choose: Callable[[list[float]], float]) -> Figure:
    def read(found: Found) -> float:
        engines = found["prefill"]["engines"].values()
        return choose([ways[way]["share_of_prefill"] for ways in engines for way in ways if way.endswith("1/4")])

    return _result_file("reduction", read, ".2f")


def _told(key: str, choose: Callable[[list[float]], float]) -> Figure:
    """How far `plan` was off, in per cent without sign."""
    return _result_file(
        "plan_error", lambda found: choose([100 * abs(row[key]["error"]) for row in found["errors"]]), ".0f"
    )


def _share(recipe: str, key: str = "share_of_none") -> Figure:
    return _result_file("quantisation", lambda found: found["decoders"][recipe]["ours"][key]["value"], ".2f")


def _waits(engine: str, situation: str) -> Figure:
    """What a question waits, in per cent of what the first one about a new picture did."""

    def read(found: Found) -> float:
        return float(100 * found["medians"][f"edge-mllm {engine}"][situation]["share_of_new_picture"])

    return _result_file("first_token", read, ".1f")


def _memory(way: str, key: str = "peak") -> Figure:
    return _result_file("run_memory", lambda found: found["ways"][way][key] / 1e6, ".0f")


def _changed(way: str) -> Figure:
    """The first token of a screen whose last tile changed, as a share of a new screen's."""
    return _result_file("changed_tile", lambda found: found["smolvlm-500m"]["ways"][way]["last"]["ttft_share"], ".2f")


def _loading(way: str, key: str) -> Figure:
    return _result_file("loading", lambda found: found[way][key], ".2f")


def _tower(way: str) -> Figure:
    return _result_file("tower", lambda found: found["ways"][way]["ratio"], ".2f")


def _of_our_tile(result: str, way: str) -> Figure:
    """Seconds a tile in a result of benchmarks/tower.py, as a share of the int8 tower's on ONNX Runtime."""

    def read(found: Found) -> float:
        return float(found["ways"][way]["tile_s"] / found["ways"]["int8 (what export writes)"]["tile_s"])

    return _result_file(result, read, ".2f")


def _megabytes(shape: str, *parts: str) -> Figure:
    def read(found: Found) -> float:
        return float(sum(found["shapes"][shape]["parts"][part]["bytes"] for part in parts) / 1e6)

    return _result_file("shapes", read, ".0f")


def _right(run: int, skill: str) -> Figure:
    return Figure(
        file="starter/results/accuracy.json", read=lambda found: 100 * found["runs"][run]["accuracy"][skill], form=".1f"
    )


def _overhead(kind: str) -> Figure:
    return _result_file("serve_overhead", lambda found: 1e3 * found["runs"][kind]["overhead_s"]["median"], ".1f")


def _second_worst(values: list[float]) -> float:
    return sorted(values)[-2]


_INT8, _ONNX, _GGUF = "edge-mllm onnx, int8 prompt", "edge-mllm onnx", "edge-mllm gguf"
_LIBMTMD, _OPENVINO, _TORCH = "libmtmd q8_0", "openvino w8a8", "torch bf16"
_B64, _ON_OPENVINO = f"{_INT8}, blocks of 64", f"{_INT8}, OpenVINO"
_NO_AMX = "smolvlm-500m_no_amx"

_WALKED = ("calls", "functions", "modules", "changes_of_module", "tilings_planned")


def _walked(name: str) -> Figure:
    """A count of the way to the first token, on the default engine."""
    return _result_file("walk", lambda found: found["engines"]["onnx"][name], ".0f")


def _picture(kind: str) -> Figure:
    """Bytes a pixel of a large picture."""
    return _result_file("picture_memory", lambda found: found["kinds"][kind]["bytes_a_pixel"], ".1f")


def _on_the_jvm(metric: str, key: str = "ratio") -> Figure:
    """What the phone's code takes of what Python takes, with the starter."""
    return _result_file("android_speed", lambda found: found["bundles"]["starter"]["ratios"][metric][key], ".2f")


FIGURES: dict[str, Figure] = {
    "serve.overhead.text": _overhead("text, 16 tokens"),
    "serve.overhead.picture": _overhead("picture, 16 tokens"),
    **{f"picture.{kind}": _picture(kind) for kind in ("baseline", "progressive", "turned")},
    "peers.first-token.libmtmd": _peers(_NO_AMX, "first_token_s", _INT8, _LIBMTMD),
    "peers.first-token.torch": _peers(_NO_AMX, "first_token_s", _INT8, _TORCH),
    "peers.first-token.openvino": _peers(_NO_AMX, "first_token_s", _INT8, _OPENVINO),
    "peers.memory.openvino": _peers(_NO_AMX, "peak_resident_bytes", _INT8, _OPENVINO),
    "peers.onnx.first-token.libmtmd": _peers(_NO_AMX, "first_token_s", _ONNX, _LIBMTMD),
    "peers.gguf.first-token.libmtmd": _peers(_NO_AMX, "first_token_s", _GGUF, _LIBMTMD),
    "peers.onnx.first-token.openvino": _peers(_NO_AMX, "first_token_s", _ONNX, _OPENVINO),
    "peers.gguf.first-token.openvino": _peers(_NO_AMX, "first_token_s", _GGUF, _OPENVINO),
    "peers.qwen.first-token.libmtmd": _peers("qwen2-vl-2b_no_amx", "first_token_s", _INT8, "libmtmd f16"),
    "peers.qwen.first-token.torch": _peers("qwen2-vl-2b_no_amx", "first_token_s", _INT8, _TORCH),
    "peers.zen4.first-token.libmtmd": _peers("smolvlm-500m_zen4", "first_token_s", _INT8, _LIBMTMD),
    "peers.zen4.first-token.openvino": _peers("smolvlm-500m_zen4", "first_token_s", _INT8, _OPENVINO),
    "peers.zen4.tower.first-token.openvino": _peers("smolvlm-500m_zen4", "first_token_s", _ON_OPENVINO, _OPENVINO),
    "peers.zen3.first-token.libmtmd": _peers("smolvlm-500m_zen3", "first_token_s", _INT8, _LIBMTMD),
    "peers.zen3.first-token.openvino": _peers("smolvlm-500m_zen3", "first_token_s", _INT8, _OPENVINO),
    **{
        f"peers.zen3.b64.{name}": _peers("smolvlm-500m_zen3", metric, _B64, other)
        for name, metric, other in (
            ("decode.libmtmd", "decode_tps", _LIBMTMD),
            ("decode.b32", "decode_tps", _INT8),
            ("prefill", "prefill_tps", _INT8),
            ("memory", "peak_resident_bytes", _INT8),
        )
    },
    "peers.qwen3_5.first-token.libmtmd": _peers("qwen3.5-0.8b", "first_token_s", _ONNX, _LIBMTMD),
    "peers.qwen3_5.second.libmtmd": _peers("qwen3.5-0.8b", "second_first_token_s", _ONNX, _LIBMTMD),
    "peers.qwen3_5.decode.libmtmd": _peers("qwen3.5-0.8b", "decode_tps", _ONNX, _LIBMTMD),
    "changed.gguf": _changed("gguf"),
    "changed.prompt": _changed("onnx, int8 prompt"),
    "peers.amx.first-token.openvino": _peers("smolvlm-500m", "first_token_s", _OPENVINO, _INT8),
    "peers.amx.first-token.torch": _peers("smolvlm-500m", "first_token_s", _TORCH, _INT8),
    "peers.amx.tower.first-token.openvino": _peers("smolvlm-500m", "first_token_s", _OPENVINO, _ON_OPENVINO),
    "peers.amx.tower.first-token.torch": _peers("smolvlm-500m", "first_token_s", _TORCH, _ON_OPENVINO),
    "peers.amx.first-token.libmtmd": _peers("smolvlm-500m", "first_token_s", _INT8, "libmtmd f16"),
    "peers.amx.internvl.torch": _peers("internvl3-1b", "first_token_s", _TORCH, _INT8),
    "prompt-weights.mb": _result_file(
        "prompt_weights",
        lambda found: sum(found["speed"]["part_bytes"][part] for part in ("prompt_onnx", "prompt_onnx_data")) / 1e6,
        ".0f",
    ),
    "prompt-weights.speed.128": _prompt_speed("128"),
    "prompt-weights.speed.892": _prompt_speed("892"),
    "prompt-weights.kl": _result_file("prompt_weights", lambda f: f["loss"]["kl_with_over_without"]["value"], ".2f"),
    "prompt-weights.kl.low": _result_file(
        "prompt_weights", lambda f: f["loss"]["kl_with_over_without"]["interval_95"][0], ".2f"
    ),
    "prompt-weights.kl.high": _result_file(
        "prompt_weights", lambda f: f["loss"]["kl_with_over_without"]["interval_95"][1], ".2f"
    ),
    "prompt-weights.right.with": _result_file("prompt_weights", lambda f: f["loss"]["right"]["with"], ".0f"),
    "prompt-weights.right.without": _result_file("prompt_weights", lambda f: f["loss"]["right"]["without"], ".0f"),
    "prompt-weights.questions": _result_file("prompt_weights", lambda f: f["loss"]["questions"], ".0f"),
    "loop.gguf": _result_file("decode_loop", lambda found: found["against"]["llama.cpp"]["ratio"], ".2f"),
    "loop.onnx": _result_file("decode_loop", lambda found: found["against"]["onnxruntime-genai"]["ratio"], ".2f"),
    "cache-f32.decode": _result_file(
        "cache_type", lambda f: f["prompt_tokens"]["900"]["f32"]["decode_tps_ratio"], ".2f"
    ),
    "cache-f32.prefill": _result_file(
        "cache_type", lambda found: 1 / found["prompt_tokens"]["900"]["f32"]["prefill_tps_ratio"], ".2f"
    ),
    "second.gguf": _waits("gguf", "second question"),
    "second.onnx": _waits("onnx", "second question"),
    "restored.gguf": _waits("gguf", "new process, restored chat"),
    "restored.onnx": _waits("onnx", "new process, restored chat"),
    "prepared.onnx": _waits("onnx", "prepared picture"),
    "large-pages.onnx": _result_file(
        "large_pages", lambda found: 100 * (found["engines"]["onnx"]["large_over_small"]["decode_tps"] - 1), ".0f"
    ),
    "reduction.all": _reduced("all"),
    "reduction.diverse": _reduced("diverse:1/4"),
    "reduction.query": _reduced("query:1/4"),
    "reduction.uniform": _reduced("uniform:1/4"),
    "reduction.blank": _reduced("blank"),
    "reduction.questions": _result_file("reduction", lambda found: sum(found["accuracy"]["questions"].values()), ".0f"),
    "reduction.blank.left-out": _result_file(
        "reduction", lambda found: 100 * (1 - found["accuracy"]["settings"]["blank"]["share"]), ".0f"
    ),
    "reduction.prefill.least": _reduced_prefill(min),
    "reduction.prefill.most": _reduced_prefill(max),
    "generic.prefill": _result_file("generic_build", lambda found: found["native_over_generic"]["prefill_tps"], ".1f"),
    "generic.decode": _result_file("generic_build", lambda found: found["native_over_generic"]["decode_tps"], ".1f"),
    "plan.first-token.worst": _told("ttft_s", max),
    "plan.decode.worst": _told("decode_tps", max),
    "plan.decode.second": _told("decode_tps", _second_worst),
    **{
        f"blocks.{short}.{name}": _decoding(shape, way)
        for short, shape in (("smolvlm", "smolvlm-500m"), ("internvl", "internvl3-1b"))
        for name, way in (
            ("b64", "int4_b64"),
            ("b128", "int4_b128"),
            ("q8", "int4_b32, cache q8"),
            ("b64-q8", "int4_b64, cache q8"),
        )
    },
    "blocks.b64.kl": _block_loss("int4_b64", lambda found: found["share_of_base"]["value"], ".2f"),
    "blocks.b128.kl": _block_loss("int4_b128", lambda found: found["share_of_base"]["value"], ".2f"),
    "blocks.b64.points": _block_loss("int4_b64", lambda found: found["points"]["value"], "+.1f"),
    "blocks.b64.low": _block_loss("int4_b64", lambda found: found["points"]["interval_95"][0], "+.1f"),
    "blocks.b64.high": _block_loss("int4_b64", lambda found: found["points"]["interval_95"][1], "+.1f"),
    "blocks.both.points": _block_loss("int4_b64, cache q8", lambda found: found["points"]["value"], "+.1f"),
    "blocks.both.low": _block_loss("int4_b64, cache q8", lambda found: found["points"]["interval_95"][0], "+.1f"),
    "blocks.both.high": _block_loss("int4_b64, cache q8", lambda found: found["points"]["interval_95"][1], "+.1f"),
    "blocks.questions": _block_loss("int4_b64", lambda found: found["questions"], ".0f"),
    "blocks.smolvlm.tokens": _result_file(
        "block_sizes", lambda found: found["speed"]["smolvlm-500m"]["prompt_tokens"], ".0f"
    ),
    "blocks.internvl.tokens": _result_file(
        "block_sizes", lambda found: found["speed"]["internvl3-1b"]["prompt_tokens"], ".0f"
    ),
    "blocks.qwen.tokens": _result_file(
        "block_sizes", lambda found: found["speed"]["qwen2-vl-2b"]["prompt_tokens"], ".0f"
    ),
    "blocks.qwen.b64": _decoding("qwen2-vl-2b", "int4_b64"),
    "blocks.qwen.b64-q8": _decoding("qwen2-vl-2b", "int4_b64, cache q8"),
    "calibration.q8-cache": _result_file(
        "quantisation",
        lambda found: (
            found["decoders"]["int4_b32"]["ours, cache q8"]["kl"] / found["decoders"]["int4_b32"]["ours"]["kl"]
        ),
        ".2f",
    ),
    "calibration.q4_0": _share("q4_0"),
    "calibration.q4_k_m": _share("q4_k_m"),
    "calibration.int4_b32": _share("int4_b32"),
    "calibration.q4_0.imatrix": _share("q4_0", "share_of_imatrix_text"),
    "calibration.q4_k_m.imatrix": _share("q4_k_m", "share_of_imatrix_text"),
    "calibration.seconds": _result_file(
        "calibration_cost", lambda found: found["models"]["smolvlm-500m"]["with"]["seconds"], ".0f"
    ),
    "calibration.gib": _result_file(
        "calibration_cost", lambda found: found["models"]["smolvlm-500m"]["with"]["peak_bytes"] / 2**30, ".1f"
    ),
    "auto.seconds": _result_file("auto_quant", lambda found: found["sweep"]["export_seconds"], ".0f"),
    "auto.sizes": _result_file("auto_quant", lambda found: len(found["comparisons"]), ".0f"),
    "auto.not-worse": _result_file(
        "auto_quant", lambda found: sum(row["not_worse"] for row in found["comparisons"]), ".0f"
    ),
    "tower.int8": _tower("int8 (what export writes)"),
    "tower.int8_static": _tower("int8_static"),
    "tower.float32": _tower("float32"),
    "tower.openvino": _tower("OpenVINO, int8_static"),
    "tower.openvino-bf16": _tower("OpenVINO, int8_static, bfloat16"),
    **{
        f"tile.{result}.{precision}": _of_our_tile(result, f"OpenVINO, int8_static{ending}")
        for result in ("tower", "tower_amx", "tower_no_amx")
        for precision, ending in (("float32", ""), ("bfloat16", ", bfloat16"))
    },
    "tile.tower_amx.mha": _of_our_tile("tower_amx", "MultiHeadAttention"),
    "tile.tower_no_amx.mha": _of_our_tile("tower_no_amx", "MultiHeadAttention"),
    "tower.answers": _result_file(
        "tower_answers",
        lambda f: 100 * f["towers"]["int8, attention in integers"]["difference_to_float32"]["mean"],
        "+.1f",
    ),
    "tower.answers.questions": _result_file("tower_answers", lambda found: found["questions"], ".0f"),
    "memory.gguf": _memory("gguf"),
    "memory.gguf.low": _memory("gguf low"),
    "memory.onnx": _memory("onnx"),
    "memory.onnx.low": _memory("onnx low"),
    "memory.prompt": _memory("onnx prompt"),
    "memory.prompt.own": _memory("onnx prompt", "peak_anonymous"),
    "memory.prompt.kept.own": _memory("onnx prompt kept", "peak_anonymous"),
    "loading.onnx": _loading("onnx, hashes remembered", "load_s"),
    "loading.onnx.kept": _loading("onnx, graphs kept", "load_s"),
    "size.tower": _megabytes("smolvlm-500m", "vision"),
    "size.gguf": _megabytes("smolvlm-500m", "decoder_gguf"),
    "size.onnx": _megabytes("smolvlm-500m", "decoder_onnx", "decoder_onnx_data", "embeddings"),
    "export.seconds": _result_file("shapes", lambda found: found["shapes"]["smolvlm-500m"]["export_s"], ".0f"),
    "export.gib": _result_file(
        "shapes", lambda found: found["shapes"]["smolvlm-500m"]["export_peak_rss_bytes"] / 2**30, ".1f"
    ),
    **{f"decide.{engine}": _decided(engine, "words") for engine in ("onnx", "gguf")},
    **{f"decide.{engine}.phrases": _decided(engine, "phrases") for engine in ("onnx", "gguf")},
    "starter.questions": Figure(file="starter/results/accuracy.json", read=lambda f: f["questions"], form=".0f"),
    "starter.number": _right(0, "number"),
    "starter.price": _right(0, "price"),
    "starter.word": _right(0, "word"),
    "starter.line": _right(0, "line"),
    "starter.item": _right(0, "item"),
    "starter.overall": _right(0, "overall"),
    "starter.thumbnail": _right(1, "overall"),
    **{f"walk.onnx.{name}": _walked(name) for name in _WALKED},
    "android.fuzz.cases": _result_file("android_fuzz", lambda found: found["cases"], ".0f"),
    "android.fuzz.answered": _result_file("android_fuzz", lambda found: found["outcomes"]["answered"], ".0f"),
    "android.fuzz.refused": _result_file("android_fuzz", lambda found: found["outcomes"]["refused"], ".0f"),
    "android.fuzz.failed_before": _result_file("android_fuzz", lambda found: len(found["failed_before"]), ".0f"),
    **{f"android.speed.{name}": _on_the_jvm(name) for name in ("first_token", "first_token_with_picture", "decode")},
    **{f"android.speed.first_token.{key}": _on_the_jvm("first_token", key) for key in ("low", "high")},
    **{f"android.speed.decode.{key}": _on_the_jvm("decode", key) for key in ("low", "high")},
    "android.speed.others": _result_file(
        "android_speed", lambda found: found["bundles"]["starter"]["other_cores"], ".1f"
    ),
    "android.fuzz.slowest": _result_file("android_fuzz", lambda found: found["slowest_s"], ".1f"),
}
