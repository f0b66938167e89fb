"""Exact vocabularies for GGUF files, read from tokenizer.json."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.gguf.file import gguf_library
from edge_mllm_export.tokenizer.gguf_pretokenizers import Splitting, find_splitting

if TYPE_CHECKING:
    import gguf
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_MARKED = (("<|", "|>"), ("<\N{FULLWIDTH VERTICAL LINE}", "\N{FULLWIDTH VERTICAL LINE}>"), ("<unused", ">"))
_CONTROL_WORDS = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A tokenizer as GGUF metadata."""

    splitting: Splitting
    tokens: tuple[str, ...]
    """Token text by id: byte-level alphabet for ordinary tokens, plain text for added ones."""
    types: tuple[int, ...]
    """gguf's TokenType by id."""
    merges: tuple[str, ...]
    """Byte-level BPE: pairs in order of rank, with a space between."""
    scores: tuple[float, ...]
    """SentencePiece BPE: minus the rank at which a token is made; the highest is merged first."""
    special: Mapping[str, int]
    """bos, eos, eot, unk, pad, ... -> id."""
    adds: Mapping[str, bool]
    """bos and eos: whether the tokenizer itself puts them around a text."""
    chat_template: str | list[dict[str, str]] | None
    strips: frozenset[str] = frozenset()
    """Added tokens that swallow the spaces behind them."""

    def model_name(self, name: str) -> str:
        """A name for the file under which llama.cpp reads it as this tokenizer does.

        llama.cpp decides by the model's name whether special tokens swallow spaces (src/llama-vocab.cpp, "per token
        attributes"): those of a "phi-3" do, all but three; and it looks for the token "</s>" then.
        """
        if not self._strips_as_phi3():
            return re.sub(r"(?i)(phi|modern)-?(3|bert)", r"\1 \2", name)
        return name if re.search(r"(?i)phi-?3", name) else f"{name} (phi-3 tokenizer)"

    def _strips_as_phi3(self) -> bool:
        kinds = gguf_library().TokenType
        marked = {int(kinds.UNKNOWN), int(kinds.CONTROL), int(kinds.USER_DEFINED)}
        stripping = {text for text, kind in zip(self.tokens, self.types, strict=True) if kind in marked} | {"</s>"}
        keeping = {"<unk>", "<s>", "<|endoftext|>"}
        return self.strips == stripping - keeping and keeping | {"</s>"} <= set(self.tokens)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """Write the ``tokenizer.*`` metadata."""
        writer.add_tokenizer_model(self.splitting.model)
        writer.add_tokenizer_pre(self.splitting.pre)
        writer.add_token_list(self.tokens)
        if self.scores:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        for name, token in self.special.items():
            getattr(writer, f"add_{name}_token_id")(token)
        for name, value in self.adds.items():
            getattr(writer, f"add_add_{name}_token")(value)
        if self.splitting.space_prefix is not None:
            writer.add_add_space_prefix(self.splitting.space_prefix)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(directory: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a checkpoint directory.

    Args:
        directory: holds tokenizer.json; tokenizer_config.json, config.json and the chat template are read when there.
        size: rows of the embedding table; ids without a token become unused padding.

    Raises:
        CheckpointError: tokenizer.json is missing, has more tokens than the table has rows, or splits text in a way
            llama.cpp does not know.
    """
    document, tokenizer = _open(directory / "tokenizer.json")
    splitting = find_splitting(document)
    tokens, types = _tokens(document, tokenizer, size)
    pairs = [tuple(p.split(" ", 1) if isinstance(p, str) else p) for p in document["model"]["merges"]]
    byte_level = splitting.model == "gpt2"
    special, adds, template = _special(directory, tokenizer, size)
    return Vocabulary(
        splitting=splitting,
        tokens=tokens,
        types=types,
        merges=tuple(" ".join(pair) for pair in pairs) if byte_level else (),
        scores=() if byte_level else _scores(tokens, pairs),
        special=special,
        adds=adds,
        chat_template=template,
        strips=_stripping(document),
    )


def _open(path: Path) -> tuple[dict[str, Any], Tokenizer]:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise CheckpointError(path, "", "is missing")
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text), Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(path, "", f"is no tokenizer ({error})") from error


def _tokens(document: dict[str, Any], tokenizer: Tokenizer, size: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    kinds = gguf_library().TokenType
    texts = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=True).items()}
    if texts and max(texts) >= size:
        reason = f"holds the token id {max(texts)}, but config.json's vocab_size is {size}"
        raise CheckpointError("tokenizer.json", "model.vocab", reason)
    added = {entry["id"]: entry for entry in document.get("added_tokens", ())}
    unknown = document["model"].get("unk_token")
    byte_fallback = bool(document["model"].get("byte_fallback"))
    tokens, types = [], []
    for token in range(size):
        text = texts.get(token)
        if text is None:
            text, kind = f"[PAD{token}]", kinds.UNUSED
        elif byte_fallback and text == unknown:
            kind = kinds.UNKNOWN
        elif token in added:
            text, kind = _added(added[token])
        else:
            kind = kinds.BYTE if byte_fallback and _is_byte(text) else kinds.NORMAL
        tokens.append(text)
        types.append(int(kind))
    _check_unique(tokens)
    return tuple(tokens), tuple(types)


def _added(entry: dict[str, Any]) -> tuple[str, Any]:
    """Text and type of an added token.

    Tokens that look like markers but are not declared special become control tokens too, as in llama.cpp's converter
    (conversion/base.py, does_token_look_special), so that they are not shown and not read from user text there.
    """
    kinds = gguf_library().TokenType
    text = str(entry["content"])
    marked = text in _CONTROL_WORDS or any(text.startswith(a) and text.endswith(b) for a, b in _MARKED)
    if entry.get("special") or marked:
        return text, kinds.CONTROL
    return text.replace(_SPACE, " "), kinds.USER_DEFINED


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _check_unique(tokens: list[str]) -> None:
    """llama.cpp ends its process when two ids have one text."""
    seen: dict[str, int] = {}
    for token, text in enumerate(tokens):
        if text in seen:
            raise CheckpointError("tokenizer.json", "added_tokens", f"{text!r} is both token {seen[text]} and {token}")
        seen[text] = token


def _stripping(document: dict[str, Any]) -> frozenset[str]:
    """Added tokens that swallow the spaces behind them; other such rules cannot be written."""
    added = document.get("added_tokens", ())
    odd = [entry["content"] for entry in added if entry.get("lstrip") or entry.get("single_word")]
    if odd:
        log.warning("llama.cpp matches %s in text otherwise than tokenizer.json does", ", ".join(odd))
    return frozenset(entry["content"] for entry in added if entry.get("rstrip"))


def _scores(tokens: tuple[str, ...], pairs: list[tuple[str, ...]]) -> tuple[float, ...]:
    """Scores that make llama.cpp's SentencePiece merge in the order of the merge list.

    SentencePiece merges the pair whose result scores highest; a result's score is minus the rank of its first pair.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    last = len(pairs)
    return tuple(-float(ranks.get(text, last)) for text in tokens)


def _special(
    directory: Path, tokenizer: Tokenizer, size: int
) -> tuple[dict[str, int], dict[str, bool], str | list[dict[str, str]] | None]:
    """Special ids and template as gguf-py reads them; what is put around a text as the tokenizer itself does it."""
    found = gguf_library().SpecialVocab(directory, load_merges=False, n_vocab=size)
    special: dict[str, int] = dict(found.special_token_ids)
    config_path = directory / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    stops = config.get("eos_token_id")
    for token in stops if isinstance(stops, list) else ():
        for name in ("eos", "eot", "eom"):
            if special.setdefault(name, token) == token:
                break
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), None)
    if start is None or start > 1 or len(whole) - start - len(bare) > 1:
        reason = f"turns the ids {bare} into {whole}, which llama.cpp cannot do"
        raise CheckpointError("tokenizer.json", "post_processor", reason)
    adds = {"bos": start == 1, "eos": len(whole) > start + len(bare)}
    if adds["bos"]:
        special["bos"] = whole[0]
    if adds["eos"]:
        special["eos"] = whole[-1]
    return special, adds, found.chat_template
