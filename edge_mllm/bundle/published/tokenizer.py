"""The tokenizer of a published directory: tokenizer.json with the tokens that the files beside it declare.

As transformers' generic class adds them: those of ``added_tokens_decoder`` by their ids, then tokens that go by a name
or are listed as special. Placeholders behind the embedding table stay plain text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.published.rules import read_object
from edge_mllm.errors import BundleError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")
_RULES = ("special", "lstrip", "rstrip", "normalized", "single_word")


def read_tokenizer(path: Path, n_vocab: int) -> Tokenizer:
    """Open a directory's tokenizer.

    Args:
        path: The directory.
        n_vocab: Rows of the embedding table.

    Raises:
        BundleError: tokenizer.json cannot be read, or tokenizer_config.json declares a token that gets another id.
    """
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(path, f"tokenizer.json cannot be read ({' '.join(str(error).split())[:200]})") from error
    settings = read_settings(path)
    known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    declared = {number: token for number, token in _declared(path, settings) if number < n_vocab}
    tokenizer.add_tokens([token for token in declared.values() if not _same(known.get(token.content), token)])
    for number, token in declared.items():
        found = tokenizer.token_to_id(token.content)
        if token.content not in known and found != number:
            reason = f"added_tokens_decoder.{number}: is {token.content}, which would get the id {found}"
            raise BundleError(path, f"tokenizer_config.json, {reason}")
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for text in dict.fromkeys((*special_names(settings).values(), *_listed(settings))):
        fits = tokenizer.token_to_id(text) is not None or tokenizer.get_vocab_size(with_added_tokens=True) < n_vocab
        if text not in present and fits:
            tokenizer.add_tokens([AddedToken(text, special=True, normalized=False)])
    return tokenizer


def read_settings(path: Path) -> dict[str, Any]:
    """tokenizer_config.json; older directories have special tokens in a file of their own, which wins there."""
    settings = read_object(path / "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return settings | read_object(path / "special_tokens_map.json")


def special_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """Tokens that a chat template may use by name, as transformers hands them to it."""
    others = [name for name in settings if name.endswith("_token") and name not in _NAMES]
    found = {}
    for name in (*_NAMES, *others):
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) and name in _NAMES else value
        if isinstance(text, str):
            found[name] = text
    extra = settings.get("extra_special_tokens")
    named = extra.items() if isinstance(extra, dict) else ()
    return found | {name: value for name, value in named if isinstance(value, str)}


def _listed(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in _LISTS:
        value = settings.get(name)
        for item in value if isinstance(value, list) else ():
            text = item.get("content") if isinstance(item, dict) else item
            if isinstance(text, str):
                yield text


def _declared(path: Path, settings: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    """Ids and tokens of ``added_tokens_decoder``, in the order of ids."""
    from tokenizers import AddedToken

    entries = settings.get("added_tokens_decoder")
    for number, entry in sorted(
        (entries if isinstance(entries, dict) else {}).items(), key=lambda item: item[0].zfill(9)
    ):
        content = entry.get("content") if isinstance(entry, dict) else None
        if not number.isdecimal() or not isinstance(content, str):
            raise BundleError(path, f"tokenizer_config.json, added_tokens_decoder.{number}: is not an id with a token")
        rules = {name: bool(entry[name]) for name in _RULES if name in entry}
        yield int(number), AddedToken(content, **rules)


def _same(known: AddedToken | None, token: AddedToken) -> bool:
    return known is not None and all(getattr(known, name) == getattr(token, name) for name in _RULES)
