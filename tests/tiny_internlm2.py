"""A tiny InternVL with an InternLM2 in the layout of InternVL's own repository: packed matrices, tokenizer.model."""

from __future__ import annotations

import itertools
import json
import string
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiny_internvl import VOCABULARY, make_tiny_internvl, make_tiny_internvl_chat
from tiny_models import _write_json

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
_RENAMED = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
"""What tokenizer_config.json calls the last pieces of the model."""
_BEHIND = ("<img>", "</img>", "<IMG_CONTEXT>")
PIECES = VOCABULARY - len(_BEHIND)

Piece = tuple[str, float, int]


def pieces(count: int = PIECES) -> list[Piece]:
    """A vocabulary as InternLM2's: specials, a zero byte, bytes, characters, merges, reserved pieces at the end."""
    listed: list[Piece] = [
        ("<unk>", 0.0, UNKNOWN),
        ("<s>", 0.0, CONTROL),
        ("</s>", 0.0, CONTROL),
        ("\0", -900.0, NORMAL),
    ]
    listed += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    letters = "etaoinshrdluc"
    made = itertools.chain(
        (_MARK * 2, "\n\n", "=="), (_MARK + a for a in letters), map("".join, itertools.product(letters, repeat=2))
    )
    characters = [_MARK, "\n", *string.ascii_letters, *string.digits, *string.punctuation, *"é中文的大模型"]
    room = count - len(listed) - len(characters) - len(_RENAMED)
    listed += [(text, -float(rank), NORMAL) for rank, text in enumerate(itertools.islice(made, room))]
    listed += [(text, -1000.0 - rank, NORMAL) for rank, text in enumerate(characters)]
    listed += [(f"[UNUSED_TOKEN_{number}]", 0.0, USER_DEFINED) for number in range(len(_RENAMED))]
    assert len(listed) == count
    return listed


def write_model(path: Path, listed: Iterable[Piece], *, algorithm: int = 2, **normalizer: Any) -> Path:
    """A tokenizer.model, written field by field.

    Args:
        path: Where to.
        listed: The pieces.
        algorithm: TrainerSpec.model_type.
        **normalizer: ``charsmap``, ``prefix``, ``extra_spaces``, ``escape``.
    """
    body = b"".join(
        _message(1, _message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))
        for text, score, kind in listed
    )
    settings = _message(1, b"identity") + _message(2, normalizer.get("charsmap", b""))
    for number, (name, usual) in enumerate((("prefix", False), ("extra_spaces", False), ("escape", True)), start=3):
        settings += bytes([number << 3, normalizer.get(name, usual)])
    trainer = (
        b"\x18" + bytes([algorithm]) + _varint(35 << 3) + b"\x01"
    )  # byte_fallback, without which the library fails
    path.write_bytes(body + _message(2, trainer) + _message(3, settings))
    return path


def _message(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def tokenizer_settings() -> dict[str, Any]:
    """tokenizer_config.json as published, with a class of its own that nobody may run."""
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    first = dict(enumerate(("<unk>", "<s>", "</s>")))
    named = first | dict(enumerate(_RENAMED + _BEHIND, start=PIECES - len(_RENAMED)))
    return {
        "added_tokens_decoder": {str(id_): {"content": text, "special": True, **flags} for id_, text in named.items()},
        "add_bos_token": True,
        "add_eos_token": False,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": 2048,
        "pad_token": "</s>",
        "tokenizer_class": "InternLM2Tokenizer",
        "unk_token": "<unk>",
    }


def make_tiny_internlm2_chat(directory: Path, *, bias: bool = False, **options: Any) -> Path:
    """Write the checkpoint and return its directory; the same weights in Llama's layout are beside it in ``native``.

    Args:
        directory: Where to write.
        bias: Give wqkv and wo biases, as the class's default has them.
        **options: Of :func:`make_tiny_internvl`.
    """
    import torch
    from safetensors.torch import load_file, save_file

    options.setdefault("num_attention_heads", 6)
    options.setdefault("hidden_size", 96)
    native = make_tiny_internvl(directory.with_name("native"), decoder="llama", attention_bias=bias, **options)
    make_tiny_internvl_chat(directory, native)
    stored = load_file(directory / "model.safetensors")
    text = json.loads((native / "config.json").read_text(encoding="utf-8"))["text_config"]
    packed = {_name(name): tensor for name, tensor in stored.items() if ".self_attn." not in name or ".o_proj." in name}
    groups, width = text["num_key_value_heads"], text["hidden_size"] // text["num_attention_heads"]
    for name in stored:
        if ".self_attn.q_proj." in name:
            q, k, v = (stored[name.replace("q_proj", f"{part}_proj")].unflatten(0, (groups, -1)) for part in "qkv")
            assert k.shape[1] == width
            rows = torch.cat((q, k, v), dim=1).flatten(0, 1)  # of each group: its queries, its key, its value
            packed[name.replace(".self_attn.q_proj.", ".attention.wqkv.")] = rows.contiguous()
    save_file(packed, directory / "model.safetensors", {"format": "pt"})
    _rewrite_config(directory, text, bias)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (directory / name).unlink()
    write_model(directory / "tokenizer.model", pieces())
    _write_json(directory / "tokenizer_config.json", tokenizer_settings())
    return directory


def _name(name: str) -> str:
    for new, old in {
        "language_model.model.embed_tokens.": "language_model.model.tok_embeddings.",
        "language_model.lm_head.": "language_model.output.",
        ".self_attn.o_proj.": ".attention.wo.",
        ".mlp.gate_proj.": ".feed_forward.w1.",
        ".mlp.up_proj.": ".feed_forward.w3.",
        ".mlp.down_proj.": ".feed_forward.w2.",
        ".input_layernorm.": ".attention_norm.",
        ".post_attention_layernorm.": ".ffn_norm.",
    }.items():
        name = name.replace(new, old)
    return name


def _rewrite_config(directory: Path, text: dict[str, Any], bias: bool) -> None:
    document = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    kept += ("max_position_embeddings", "rms_norm_eps", "vocab_size", "hidden_act")
    document["llm_config"] = {name: text[name] for name in kept} | {
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
        "attn_implementation": "eager",
        "bias": bias,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "model_type": "internlm2",
        "pad_token_id": 2,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "tie_word_embeddings": False,
    }
    _write_json(directory / "config.json", document)
