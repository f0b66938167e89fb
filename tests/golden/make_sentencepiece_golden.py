"""Write sentencepiece.json next to this file: two small vocabularies, and what SentencePiece itself makes of texts.

    python tests/golden/make_sentencepiece_golden.py

Needs the sentencepiece package, which the export extra has.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from oracle.nasty_texts import nasty_texts  # noqa: E402

RESERVED = [f"[UNUSED_TOKEN_{number}]" for number in range(4)]
"""User-defined pieces, some of which get another text from tokenizer_config.json, as in InternLM2."""


def train(corpus: list[str], *, prefix: bool) -> bytes:
    """A BPE vocabulary with byte pieces; user-defined ones where no prefix is put before a text."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=out,
        model_type="bpe",
        vocab_size=1000,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        user_defined_symbols=[] if prefix else RESERVED,
        minloglevel=2,
    )
    return out.getvalue()


def entry(corpus: list[str], *, prefix: bool) -> dict[str, Any]:
    """One vocabulary with the ids of all texts."""
    import sentencepiece

    model = train(corpus, prefix=prefix)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = [text for text in nasty_texts(count=40) if "\0" not in text]
    if not prefix:
        texts += [f"a{RESERVED[0]} b{RESERVED[1]}{RESERVED[1]}", f" {RESERVED[2]}\n{RESERVED[3][:-1]}"]
    rows = [{"text": text, "ids": processor.encode(text)} for text in texts]
    return {"prefix": prefix, "model": base64.b64encode(model).decode("ascii"), "texts": rows}


def main() -> None:
    import sentencepiece

    corpus = [line for text in nasty_texts(count=0) * 3 for line in text.split("\n") if line.strip()]
    corpus += [line for line in Path(__file__).read_text(encoding="utf-8").split("\n") if line.strip()] * 4
    document = {
        "what": "ids of texts by the sentencepiece library, for the reader of tokenizer.model files",
        "sentencepiece": sentencepiece.__version__,
        "entries": [entry(corpus, prefix=prefix) for prefix in (False, True)],
    }
    text = json.dumps(document, ensure_ascii=True)
    text = text.replace('{"text"', '\n{"text"').replace('"texts"', '\n"texts"')
    (HERE / "sentencepiece.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
