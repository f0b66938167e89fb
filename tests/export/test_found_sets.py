"""More configuration files that public repositories carry, beside those of test_published_sets.py.

Where each was found stands in docs/families.md. Fields and values are theirs, the files are of our own writing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_sets import Files, check_refused, planned, write_set
from family_parity import Pair
from found_sets import INTERN_VIT, PLANNED, SAVED_BY_5, SO400M, VLLAMA, bunny_phi, granite_docling
from image_settings import picture
from tiny_anyres import make_tiny_llava_onevision
from tiny_internvl import make_tiny_internvl
from tiny_models import make_tiny_smolvlm
from tiny_qwen3_vl import make_tiny_qwen3_vl

from edge_mllm_export.families.registry import find_family
from edge_mllm_export.json_files import write_json
from edge_mllm_export.source.adapter.config import read_adapter_config
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.sections import check_sections


@pytest.mark.parametrize("name", PLANNED)
def test_a_set_is_planned_at_its_true_size(name: str, tmp_path: Path) -> None:
    files, expected = PLANNED[name]
    planned(tmp_path, files(), expected)


def _unknown(name: str, model_type: str, **fields: Any) -> Files:
    return {"config": {"architectures": [name], "model_type": model_type, **fields}}


def _tinyllava_gemma3() -> Files:
    text = {"architectures": ["Gemma3ForCausalLM"], "hidden_size": 1152, "model_type": "gemma3_text"}
    config = {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "connector_type": "mlp2x_gelu",
        "hidden_size": 1152,
        "image_aspect_ratio": "square",
        "image_token_index": -200,
        "llm_model_name_or_path": "LLM-Research/gemma-3-1b-pt",
        "model_type": "tinyllava",
        "text_config": text | {"num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1},
        "vision_config": SO400M | {"model_name_or_path": "google/siglip2-so400m-patch14-384"},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "patch",
        "vocab_size": 262144,
    }
    return {"config": config}


REFUSED: dict[str, tuple[Callable[[], Files], str]] = {
    "TinyLLaVA with a Gemma 3": (_tinyllava_gemma3, r"config.json', text_config.model_type: is 'gemma3_text'"),
    "Bunny with two towers": (
        lambda: bunny_phi(mm_vision_tower="mixedencoder", mm_hidden_size=1024),
        r"config.json', mm_vision_tower: is 'mixedencoder'",
    ),
    "granite-docling without its image processor": (
        lambda: {"config": granite_docling()["config"]},
        r"preprocessor_config.json': is missing",
    ),
    "AndesVL": (
        lambda: _unknown(
            "AndesVLForConditionalGeneration", "andesvl-aimv2-qwen3", vision_config={"model_type": "aimv2"}
        ),
        r"'AndesVLForConditionalGeneration' is not supported: the nearest is .* vision_config.model_type \"aimv2\"",
    ),
    "MinerU2": (
        lambda: _unknown("Mineru2QwenForCausalLM", "mineru2_qwen", mm_vision_tower="google/siglip-so400m-patch14-384"),
        r"'Mineru2QwenForCausalLM' is not supported: the nearest is",
    ),
    "VideoLLaMA3": (
        lambda: _unknown("Videollama3Qwen2ForCausalLM", "videollama3_qwen2", image_token_index=151665),
        r"'Videollama3Qwen2ForCausalLM' is not supported",
    ),
    "LFM2.5-VL": (
        lambda: _unknown("Lfm2VlForConditionalGeneration", "lfm2_vl", image_token_id=396, vision_config={}),
        r"'Lfm2VlForConditionalGeneration' is not supported",
    ),
    "MiniCPM-V 4.6 in AWQ": (
        lambda: _unknown(
            "MiniCPMV4_6ForConditionalGeneration",
            "minicpmv4_6",
            quantization_config={"bits": 4, "group_size": 128, "quant_method": "awq"},
        ),
        r"already quantised \(AWQ, 4 bits\)",
    ),
}
"""Set -> its files, and what both say."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_sentence_by_both(name: str, tmp_path: Path) -> None:
    files, says = REFUSED[name]
    check_refused(write_set(tmp_path / "set", files()), says)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:2cf7f8287f7e928214960b6691b0ea2d6eac6964\nsize 1484\n"


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "preprocessor_config.json"])
def test_configuration_files_that_are_pointers_are_named(file: str, tmp_path: Path) -> None:
    """Two adapters were found whose every JSON file is one."""
    files = granite_docling() if file == "preprocessor_config.json" else {}
    (write_set(tmp_path / "set", files) / file).write_text(POINTER)
    check_refused(tmp_path / "set", f"{file}.*git lfs pull")


def test_adapter_files_of_peft_and_unsloth_are_read(tmp_path: Path) -> None:
    """PEFT 0.18 writes out every field; Unsloth adds one inside auto_mapping."""
    kinds = ("alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "megatron_config")
    parts = ("exclude_modules", "layers_pattern", "modules_to_save", "target_parameters", "trainable_token_indices")
    written = dict.fromkeys((*kinds, *parts, "revision"))
    written |= dict.fromkeys(("ensure_weight_tying", "lora_bias", "use_dora", "use_qalora", "use_rslora"), False)
    written |= {"alpha_pattern": {}, "loftq_config": {}, "rank_pattern": {}, "megatron_core": "megatron.core"}
    kind = {"peft_type": "LORA", "r": 16, "lora_alpha": 16, "qalora_group_size": 16, "init_lora_weights": True}
    mapping = {"base_model_class": "Qwen3VLForConditionalGeneration", "unsloth_fixed": True}
    base = {"base_model_name_or_path": "Qwen/Qwen3-VL-8B-Instruct", "auto_mapping": mapping}
    write_set(tmp_path, {"adapter_config": written | kind | base})
    found = read_adapter_config("adapter", tmp_path)
    assert (found.base, found.revision, found.scaling("model.q_proj", 16)) == ("Qwen/Qwen3-VL-8B-Instruct", None, 1.0)


def _edit(directory: Path, file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = directory / f"{file}.json"
    write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))


def _small_smolvlm2(home: Path) -> Path:
    """Fields of older code in the language model, fields of the processor in the tower."""
    source = make_tiny_smolvlm(home / "smolvlm2", smolvlm2=True)
    tower = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 128}, "use_base_siglip": False}
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")

    def older(config: dict[str, Any]) -> dict[str, Any]:
        text = config["text_config"] | VLLAMA | {"bos_token_id": None}
        text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
        small = {name: config["vision_config"][name] for name in kept} | tower | {"model_type": "smolvlm_vision"}
        return config | {"text_config": text, "vision_config": small, "pad_token_id": 128002, "torch_dtype": "float32"}

    _edit(source, "config", older)
    videos = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}}
    _edit(
        source, "preprocessor_config", lambda found: found | videos | {"image_processor_type": "SmolVLMImageProcessor"}
    )
    _edit(source, "processor_config", lambda found: found | {"processor_class": "SmolVLMProcessor"})
    return source


GRANITE_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '<row_1_col_1>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] == 'image' -%}{{- '<image>' -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<end_of_utterance>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant' -}}"
    "{%- if controls -%}{{- ' ' + controls | tojson() -}}{%- endif -%}{{- '<row_1_col_1>' -}}{%- endif -%}\n"
)
"""Ends roles with a mark, and asks for ``controls`` that nobody sets."""


def _small_granite(home: Path) -> Path:
    source = make_tiny_smolvlm(home / "granite", tied=True)
    (source / "chat_template.json").unlink()
    (source / "chat_template.jinja").write_text(GRANITE_TEMPLATE, encoding="utf-8")
    tower = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 32}}
    _edit(source, "config", lambda found: found | {"vision_config": found["vision_config"] | tower})
    return source


def _small_internvl(home: Path) -> Path:
    source = make_tiny_internvl(home / "internvl", decoder="qwen3")
    _edit(source, "config", lambda found: found | {"vision_config": found["vision_config"] | INTERN_VIT})
    kind = {"image_processor_type": "GotOcr2ImageProcessorFast", "do_pad": None}
    _edit(source, "preprocessor_config", lambda found: found | kind)
    return source


def _small_onevision(home: Path) -> Path:
    """The tokenizer's template is null, the processor's is in chat_template.json."""
    source = make_tiny_llava_onevision(home / "onevision")
    template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    (source / "chat_template.jinja").unlink()
    write_json(source / "chat_template.json", {"chat_template": template})
    _edit(source, "tokenizer_config", lambda found: found | {"chat_template": None, "model_max_length": 16384})
    return source


def _small_qwen3(home: Path) -> Path:
    """Saved by transformers 5: one file for all processors, tokens as a list, the tokenizer's backend named."""
    source = make_tiny_qwen3_vl(home / "qwen3")
    given = json.loads((source / "preprocessor_config.json").read_text(encoding="utf-8"))
    (source / "preprocessor_config.json").unlink()
    videos = SAVED_BY_5 | {"fps": 2, "num_frames": None, "video_processor_type": "Qwen3VLVideoProcessor"}
    nested = {"image_processor": given | SAVED_BY_5, "video_processor": given | videos}
    write_json(source / "processor_config.json", nested | {"processor_class": "Qwen3VLProcessor"})
    marks = [f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")]
    saved = {"additional_special_tokens": None, "backend": "tokenizers", "extra_special_tokens": marks}
    _edit(source, "tokenizer_config", lambda found: found | saved | {"is_local": False, "errors": "replace"})
    return source


SMALL: dict[str, Callable[[Path], Path]] = {
    "SmolVLM2-500M": _small_smolvlm2,
    "granite-docling-258M": _small_granite,
    "InternVL3.5-2B-HF": _small_internvl,
    "LLaVA-OneVision-7B": _small_onevision,
    "Qwen3-VL saved by transformers 5": _small_qwen3,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_set_is_opened_around_random_weights(name: str, tmp_path: Path) -> None:
    source = SMALL[name](tmp_path)
    (tmp_path / "scratch").mkdir()
    checkpoint = resolve_source(str(source), tmp_path / "scratch")
    check_sections(checkpoint, find_family(checkpoint))
    assert facts_of_source(str(source)).context_length == find_family(checkpoint).decoder(checkpoint).context_length
    pair = Pair.of(checkpoint)
    for count in range(3):
        found = pair.compare([picture(60 + 50 * number, 40) for number in range(count)], "What  1. is it?")
        assert found.pixels_equal and found.ids_equal
    shutil.rmtree(source)
