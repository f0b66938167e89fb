"""Run llama.cpp's converter on checkpoint directories; started as a process of its own.

The converter knows a tokenizer only by a hash of one example text. For tokenizers made for tests, --pre gives the
answer that the hash would have given; tokens, merges, types and everything else are the converter's own work.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path, help="llama.cpp's folder")
    parser.add_argument("jobs", type=json.loads, help="JSON list of the converter's argument lists")
    parser.add_argument("--pre", help="pre-tokeniser type instead of the hash look-up")
    parser.add_argument("--no-vocabulary", action="store_true", help="leave out what needs the sentencepiece package")
    known = parser.parse_args()
    script = known.source / "convert_hf_to_gguf.py"
    sys.path[:0] = [str(known.source), str(known.source / "gguf-py")]
    import transformers  # noqa: F401 - looks for the real package, so it comes before the stand-in

    if find_spec("sentencepiece") is None:  # imported by the converter before it looks whether there is a file for it
        stand_in = ModuleType("sentencepiece")
        stand_in.SentencePieceProcessor = None
        sys.modules["sentencepiece"] = stand_in
    if known.pre:
        from conversion.base import TextModel

        TextModel.get_vocab_base_pre = lambda _self, _tokenizer: known.pre
    if known.no_vocabulary:
        from conversion.gemma import GemmaModel
        from conversion.internlm import InternLM2Model

        for kind in (GemmaModel, InternLM2Model):
            kind.set_vocab = lambda model: model.gguf_writer.add_tokenizer_model("none")
    for job in known.jobs:
        sys.argv = [str(script), *job]
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
