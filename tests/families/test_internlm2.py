"""InternVL 2.5 with an InternLM2: the packed layout, its SentencePiece vocabulary, tower and both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy
from family_parity import Pair, seeded_sizes
from image_settings import picture
from oracle.gguf_compare import convert, tensor_differences
from oracle.llama_cpp_source import llama_cpp_source
from oracle.llama_vocab import LlamaVocab
from oracle.nasty_texts import nasty_texts
from tiny_internlm2 import make_tiny_internlm2_chat
from tokenizers import Tokenizer

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.families.internvl import family as internvl
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_internlm2_chat(tmp_path_factory.mktemp("internlm2") / "chat", max_patches=6)


@pytest.fixture(scope="module")
def rewritten(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_source(str(chat), tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize("bias", [False, True])
def test_every_tensor_is_the_native_one(tmp_path: Path, bias: bool) -> None:
    source = make_tiny_internlm2_chat(tmp_path / "chat", bias=bias)
    found, native = resolve_source(str(source), tmp_path), resolve_source(str(tmp_path / "native"), tmp_path)
    assert set(found.tensors) == set(native.tensors)
    for name in native.tensors:
        assert np.array_equal(found.tensor(name).numpy(), native.tensor(name).numpy()), name
    check_tensors(found, internvl.FAMILY)


def test_logits_are_those_of_the_packed_matrices(chat: Path, rewritten: Checkpoint) -> None:
    """transformers' Llama on the rewritten weights against InternLM2's arithmetic on the stored ones."""
    import torch
    from safetensors.torch import load_file
    from transformers import InternVLForConditionalGeneration

    ids = torch.randint(3, 500, (40,), generator=torch.Generator().manual_seed(0))
    config = json.loads((chat / "config.json").read_text(encoding="utf-8"))["llm_config"]
    ours = internlm2_logits(load_file(chat / "model.safetensors"), config, ids)
    model = InternVLForConditionalGeneration.from_pretrained(rewritten.path, dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs = model(input_ids=ids[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-4
    assert theirs.std() > 1


def internlm2_logits(tensors: dict[str, Any], config: dict[str, Any], ids: Any) -> Any:
    """InternLM2 in a few lines, up to its training context; the pattern of wqkv is [group, queries + 2, width]."""
    import torch

    weights = {name.removeprefix("language_model."): value.float() for name, value in tensors.items()}
    groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
    width, count = config["hidden_size"] // heads, len(ids)
    powers = torch.arange(0, width, 2).float() / width
    angles = torch.arange(count).float()[:, None] / config["rope_theta"] ** powers
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def norm(x: Any, name: str) -> Any:
        return x * (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt() * weights[name]

    def rotate(x: Any) -> Any:  # first and second half of a head are real and imaginary part
        turned = torch.complex(*x.chunk(2, dim=-1)) * turn
        return torch.cat((turned.real, turned.imag), dim=-1)

    hidden = weights["model.tok_embeddings.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        qkv = norm(hidden, layer + "attention_norm.weight") @ weights[layer + "attention.wqkv.weight"].T
        qkv = qkv.reshape(count, groups, heads // groups + 2, width)
        q, k, v = rotate(qkv[:, :, :-2].flatten(1, 2)), rotate(qkv[:, :, -2]), qkv[:, :, -1]
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / width**0.5
        scores += torch.full((count, count), -torch.inf).triu(1)
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
        hidden = hidden + mixed @ weights[layer + "attention.wo.weight"].T
        x = norm(hidden, layer + "ffn_norm.weight")
        gate, up, down = (weights[f"{layer}feed_forward.w{part}.weight"].T for part in (1, 3, 2))
        hidden = hidden + (torch.nn.functional.silu(x @ gate) * (x @ up)) @ down
    return norm(hidden, "model.norm.weight") @ weights["output.weight"].T


def test_decoder_tensors_are_those_of_llama_cpps_converter(chat: Path, rewritten: Checkpoint, tmp_path: Path) -> None:
    """Their converter knows the packed layout as an architecture of its own; only the vocabulary is left out."""
    source = llama_cpp_source()
    theirs = convert(source, chat, tmp_path / "theirs.gguf", "--outtype", "f32", vocabulary=False)
    text = write_text_checkpoint(rewritten, internvl.FAMILY, tmp_path / "text")
    ours = tmp_path / "ours.gguf"
    write_decoder_gguf(text, ours, "f32", name="tiny")
    assert tensor_differences(ours, theirs) == []


def test_prompt_ids_and_pixels_are_the_references(rewritten: Checkpoint) -> None:
    pair = Pair.of(rewritten)
    for count in (0, 1, 3):
        rgbs = [picture(30 + 40 * number, 50) for number in range(count)]
        found = pair.compare(rgbs, "Which is larger? <|im_end|> café 中文")
        assert found.ids_equal and found.pixels_equal
        assert (found.ids == pair.spec.prompt.image_token_id).any() == bool(count)
    for size in seeded_sizes(24, longest=200):
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
    ids = pair.compare([picture(60, 40)], "Read it.").ids
    assert ids[0] == 1 and 1 not in ids[1:]  # one begin token
    text = pair.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<s><|im_start|>system\n你是书生·万象") and text.endswith("<|im_start|>assistant\n")


def test_gguf_vocabulary_cuts_text_as_tokenizer_json(rewritten: Checkpoint, tmp_path: Path) -> None:
    text = write_text_checkpoint(rewritten, internvl.FAMILY, tmp_path / "text")
    path = tmp_path / "model.gguf"
    write_decoder_gguf(text, path, "f32", name="tiny")
    tokenizer = Tokenizer.from_file(str(text / "tokenizer.json"))
    texts = nasty_texts(("<|im_end|>", "<img>", "<|im_start|>"))
    with LlamaVocab(path) as vocabulary:
        wrong = [t for t in texts if tokenizer.encode(t, add_special_tokens=False).ids != vocabulary.encode(t)]
        assert wrong == []
        assert vocabulary.encode("a b", add_special=True) == tokenizer.encode("a b").ids
        assert vocabulary.special["bos"] == 1
        assert vocabulary.ends(tokenizer.token_to_id("<|im_end|>"))


@pytest.fixture(scope="module")
def engines(rewritten: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(rewritten, tmp_path_factory.mktemp("bundle") / "internlm2.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


def test_four_bit_bundle_runs_and_is_verified(chat: Path, tmp_path: Path) -> None:
    spec, _ = four_bits(chat, tmp_path / "four.edge")
    assert spec.decoder.context_length == 2048


@pytest.mark.parametrize(
    ("file", "section", "change", "says"),
    [
        ("config.json", "llm_config", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, r"llm_config\.rope_scaling"),
        ("config.json", "llm_config", {"rope_scaling": 2.0}, r"llm_config\.rope_scaling"),
        ("config.json", "llm_config", {"rope_pos_id_version": "v2pe"}, "rope_pos_id_version"),
        ("config.json", "llm_config", {"num_key_value_heads": 5}, r"llm_config\.num_attention_heads: is 6"),
        ("config.json", "llm_config", {"num_key_value_heads": 0}, r"llm_config\.num_key_value_heads: is 0"),
        ("config.json", "llm_config", {"hidden_size": "x"}, r"llm_config\.hidden_size: is 'x'"),
        ("config.json", "llm_config", {"num_key_value_heads": 1}, r"wqkv\.weight: has 160 rows, expected 128"),
        ("tokenizer_config.json", None, {"tokenizer_class": "OtherTokenizer"}, "auto_map: asks for a tokenizer class"),
        ("tokenizer_config.json", None, {"bos_token": "<begin>"}, r"bos_token: '<begin>' is not a piece"),
        ("tokenizer_config.json", None, {"added_tokens_decoder": []}, "added_tokens_decoder: is not"),
        ("tokenizer_config.json", None, {"added_tokens_decoder": {"x": {}}}, r"added_tokens_decoder\.x: is not"),
        (
            "tokenizer_config.json",
            "added_tokens_decoder",
            {"546": {"content": "th", "special": True}},
            r"added_tokens_decoder\.546: 'th' would get the id",
        ),
    ],
)
def test_hostile_settings_name_file_and_field(
    chat: Path, tmp_path: Path, file: str, section: str | None, change: dict[str, Any], says: str
) -> None:
    source = changed_copy(chat, tmp_path / "source", file, change, section)
    with pytest.raises(EdgeMLLMError, match=says) as caught:
        resolve_source(str(source), tmp_path)
    assert "\n" not in str(caught.value)


def test_linear_scaling_is_kept(chat: Path, tmp_path: Path) -> None:
    change = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    source = changed_copy(chat, tmp_path / "source", "config.json", change, "llm_config")
    text = internvl.text_config(resolve_source(str(source), tmp_path))
    assert text["rope_parameters"]["rope_type"] == "linear" and text["rope_parameters"]["factor"] == 2.0


def test_a_gap_in_the_ids_and_no_tokenizer_at_all(chat: Path, tmp_path: Path) -> None:
    source = changed_copy(chat, tmp_path / "source", "tokenizer_config.json", {})
    document = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    document["added_tokens_decoder"].pop("544")
    (source / "tokenizer_config.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(EdgeMLLMError, match=r"added_tokens_decoder\.545: '</img>' would get the id 544"):
        resolve_source(str(source), tmp_path)
    (source / "tokenizer.model").unlink()
    with pytest.raises(EdgeMLLMError, match="asks for a tokenizer class"):
        resolve_source(str(source), tmp_path)
