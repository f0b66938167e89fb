"""onnxruntime-genai on the decoder alone, in the 4-bit form its own builder writes; it knows no tower of this family.

The prompt has as many tokens as the others' prompts with their visual tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from protocol import Job, Question, Reply, serve

_OPTIONS = ("accuracy_level=4", "block_size=32", "prune_lm_head=true")
"""The fastest form: the head is multiplied with the last position only."""


def prepare(job: Job) -> None:
    """Run the builder on the language model."""
    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.write.onnx.builder import builder_source
    from edge_mllm_export.write.text_model import write_text_checkpoint

    checkpoint, out = open_checkpoint(Path(job.checkpoint)), Path(job.out)
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(builder_source(text, out))]
    command += ["-o", str(out / "model"), "-p", "int4", "-e", "cpu", "-c", str(out / "cache"), "--extra_options"]
    subprocess.run([*command, *_OPTIONS], check=True, stdout=sys.stderr)


class Genai:
    """A loaded decoder."""

    def __init__(self, job: Job) -> None:
        import onnxruntime_genai as genai

        self.genai = genai
        directory = Path(job.out) / "model"
        config = genai.Config(str(directory))
        session = {"session_options": {"intra_op_num_threads": job.threads}}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self.model = genai.Model(config)
        settings = json.loads((directory / "genai_config.json").read_text("utf-8"))
        self.n_vocab = int(settings["model"]["vocab_size"])
        self.files = [str(path) for path in directory.glob("model.onnx*")]
        versions = {name: metadata.version(name) for name in ("onnxruntime-genai", "onnxruntime")}
        note = "decoder alone: the tower is left out, a prompt of as many text tokens stands for the picture"
        self.about = {"versions": versions, "precision": {"decoder": "int4 g32"}, "note": note}
        self.number = 0

    def answer(self, question: Question) -> Reply:
        """Answer a question about a new picture."""
        self.number += 1
        ids = np.random.default_rng(self.number).integers(0, self.n_vocab, question.prompt_tokens, dtype=np.int32)
        parameters = self.genai.GeneratorParams(self.model)
        length = question.prompt_tokens + question.answer_tokens
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = self.genai.Generator(self.model, parameters)
        start = time.perf_counter()
        generator.append_tokens(ids[None])
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(question.answer_tokens - 1):
            generator.generate_next_token()
        end = time.perf_counter()
        return Reply(None, first - start, end - first, question.prompt_tokens, None, question.answer_tokens)

    def again(self, question: Question) -> None:  # noqa: ARG002  (every peer is asked alike)
        """It has seen no picture."""
        return


if __name__ == "__main__":
    serve(Genai, prepare)
