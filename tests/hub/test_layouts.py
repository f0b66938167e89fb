"""Which files of a repository are taken: lists as repositories of the hub have them."""

from __future__ import annotations

import pytest

from edge_mllm.errors import HubError, SettingError
from edge_mllm.hub import layouts
from edge_mllm.hub.layouts import choose
from edge_mllm.hub.names import read_name


@pytest.fixture(autouse=True)
def with_llama(monkeypatch):
    monkeypatch.setattr(layouts, "find_spec", lambda name: object())


def sizes(*names: str) -> dict[str, int]:
    return dict.fromkeys((*names, "README.md", ".gitattributes"), 10)


GGUF = {
    "ggml-org": (
        ("SmolVLM-500M-Instruct-Q8_0.gguf", "SmolVLM-500M-Instruct-f16.gguf", "mmproj-SmolVLM-500M-Instruct-Q8_0.gguf",
         "mmproj-SmolVLM-500M-Instruct-f16.gguf"),
        "SmolVLM-500M-Instruct-Q8_0.gguf",
        "mmproj-SmolVLM-500M-Instruct-f16.gguf",
    ),
    "dots": (
        ("Qwen2.5-VL-7B-Instruct.F16.gguf", "Qwen2.5-VL-7B-Instruct.Q5_K_M.gguf", "Qwen2.5-VL-7B-Instruct.Q4_K_M.gguf",
         "Qwen2.5-VL-7B-Instruct.BF16-mmproj.gguf"),
        "Qwen2.5-VL-7B-Instruct.Q4_K_M.gguf",
        "Qwen2.5-VL-7B-Instruct.BF16-mmproj.gguf",
    ),
    "of the model's maker": (
        ("Qwen3VL-2B-Instruct-F16.gguf", "Qwen3VL-2B-Instruct-Q4_K_M.gguf", "Qwen3VL-2B-Instruct-Q8_0.gguf",
         "mmproj-Qwen3VL-2B-Instruct-F16.gguf", "mmproj-Qwen3VL-2B-Instruct-Q8_0.gguf"),
        "Qwen3VL-2B-Instruct-Q4_K_M.gguf",
        "mmproj-Qwen3VL-2B-Instruct-F16.gguf",
    ),
    "many": (
        ("m-IQ3_M.gguf", "m-IQ4_XS.gguf", "m-Q2_K.gguf", "m-Q4_K_S.gguf", "m.imatrix.gguf", "m.mmproj-fp16.gguf"),
        "m-Q4_K_S.gguf",
        "m.mmproj-fp16.gguf",
    ),
    "one without a type": (("ggml-model.gguf", "mmproj.gguf"), "ggml-model.gguf", "mmproj.gguf"),
    "no tower": (("text-Q4_0.gguf",), "text-Q4_0.gguf", None),
    "folders": (
        ("Q8_0/m-Q8_0.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf",
         "mmproj-F16.gguf"),
        "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf",
        "mmproj-F16.gguf",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUF)
def test_a_gguf_file_of_four_bits_with_its_tower(case):
    names, model, tower = GGUF[case]
    found = choose("org/x", sizes(*names))
    assert (found.layout, found.opened, found.mmproj) == ("gguf", model, tower)
    assert {model, "README.md"} <= set(found.files)
    assert not any("imatrix" in name for name in found.files)


def test_all_parts_of_a_split_file_are_fetched():
    names, model, _ = GGUF["folders"]
    files = choose("org/x", sizes(*names)).files
    assert [name for name in files if "Q4_K_M" in name] == [model, model.replace("00001-of", "00002-of")]
    assert not any("Q8_0" in name for name in files)


def test_another_type_by_name():
    names, _, _ = GGUF["ggml-org"]
    assert choose("org/x", sizes(*names), quant="F16").opened == "SmolVLM-500M-Instruct-f16.gguf"
    with pytest.raises(HubError, match=r"no GGUF file in q6_k; it holds SmolVLM-500M-Instruct-Q8_0\.gguf"):
        choose("org/x", sizes(*names), quant="q6_k")


ONNX = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *(
        "onnx/embed_tokens.onnx",
        "onnx/embed_tokens_fp16.onnx",
        "onnx/vision_encoder.onnx",
        "onnx/vision_encoder_q4.onnx",
    ),
    *("onnx/decoder_model_merged.onnx", "onnx/decoder_model_merged.onnx_data", "onnx/decoder_model_merged_q4.onnx"),
    *("onnx/decoder_model_merged_q4.onnx_data", "onnx/decoder_model_merged_fp16.onnx", "model.safetensors"),
)


def test_only_needed_onnx_files():
    found = choose("org/x", sizes(*ONNX))
    assert found.layout == "onnx"
    graphs = [name for name in found.files if name.startswith("onnx/")]
    assert graphs == [
        *("onnx/embed_tokens_fp16.onnx", "onnx/vision_encoder.onnx", "onnx/decoder_model_merged_q4.onnx"),
        "onnx/decoder_model_merged_q4.onnx_data",
    ]
    assert "model.safetensors" not in found.files and "tokenizer.json" in found.files
    graphs = choose("org/x", sizes(*ONNX), precision="vision_encoder=q4,decoder_model_merged=fp32").files
    assert {"onnx/vision_encoder_q4.onnx", "onnx/decoder_model_merged.onnx_data"} <= set(graphs)
    with pytest.raises(HubError, match="no decoder_model_merged in int8; it has q4, fp32, fp16"):
        choose("org/x", sizes(*ONNX), precision="decoder_model_merged=int8")


def test_the_order_of_layouts_and_what_overrides_it(monkeypatch):
    everything = sizes(*ONNX, "a-Q4_0.gguf", "mmproj-a.gguf", "bundle.json", "decoder.gguf", "vision.onnx")
    assert choose("org/x", everything).layout == "bundle"
    del everything["bundle.json"]
    assert choose("org/x", everything).layout == "gguf"
    assert choose("org/x", everything, layout="onnx").layout == "onnx"
    assert choose("org/x", everything, precision="fp32").layout == "onnx"
    monkeypatch.setattr(layouts, "find_spec", lambda name: None)
    assert choose("org/x", everything).layout == "onnx"
    with pytest.raises(HubError, match=r"GGUF files need llama-cpp-python: pip install 'edge-mllm\[gguf\]'"):
        choose("org/x", sizes("a-Q4_0.gguf"))
    with pytest.raises(SettingError, match="must be one of bundle, gguf, onnx, checkpoint"):
        choose("org/x", everything, layout="coreml")


def test_a_bundle_in_a_folder_of_its_own():
    found = choose("org/x", sizes("a.edge/bundle.json", "a.edge/vision.onnx", "other/model.safetensors"))
    assert (found.opened, found.files) == ("a.edge", ("a.edge/bundle.json", "a.edge/vision.onnx"))


def test_nothing_usable():
    with pytest.raises(HubError, match=r"holds nothing that can be run; it holds README\.md, a\.bin"):
        choose("org/x", sizes("a.bin"))
    with pytest.raises(HubError, match="holds no GGUF file with its mmproj"):
        choose("org/x", sizes("a.bin"), layout="gguf")


NAMES = {
    "org/name": (("org/name",), None),
    "hf:org/name": (("org/name",), None),
    "org/name@v1": (("org/name",), "v1"),
    "org/name@refs/pr/3": (("org/name",), "refs/pr/3"),
    "SmolVLM-500M": (("ggml-org/SmolVLM-500M-Instruct-GGUF", "HuggingFaceTB/SmolVLM-500M-Instruct"), None),
}


@pytest.mark.parametrize("text", NAMES)
def test_names(text):
    found = read_name(text)
    repos, revision = NAMES[text]
    assert found is not None and found.revision == revision
    assert tuple(dict.fromkeys(found.repos)) == repos


def test_an_existing_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert read_name("org/name") is None
    assert read_name("hf:org/name").repos == ("org/name",)
    for path in ("./a/b", "/a/b", "models/x.gguf", "models/x.edge", "~/a", "nothing", "a/b/c"):
        assert read_name(path) is None
