"""What benchmarks/quantisation.py measures with: questions, the checkpoint's answers, and variants made on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.protocol import Decoder
from edge_mllm.decoders.settings import DecoderSettings, KVType
from edge_mllm.tower.tower import VisionTower
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.calibrate.cache_peaks import CachePeaks
from edge_mllm_export.calibrate.calibration import gather_moments, read_calibration
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.probes import Probe
from edge_mllm_export.reference.reference import Answer, Reference
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.verify.agreement import compare_embeddings
from edge_mllm_export.verify.candidate import Candidate, Prepared, prefilled
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.gguf.quantise import QuantiseOptions, options_of
from edge_mllm_export.write.onnx.decoder import DATA, EMBEDDINGS, GRAPH, write_decoder_onnx
from edge_mllm_export.write.onnx.prompt import GRAPH as PROMPT
from edge_mllm_export.write.onnx.prompt import write_prompt_onnx
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.tower import tower_samples, write_vision_onnx
from edge_mllm_quant.recipes.recipe import Recipe, find_recipe
from edge_mllm_quant.weights.activations import Moments
from starter import evaluate, layouts

GGUF_RECIPES = ("q4_0", "q4_k_m", "iq4_nl")
FIRST_SEED, TEXT_SEED = 600_000, 810_000
TEXT_POSITIONS = 2048
"""More than the positions of text in the calibration pages; a text-only prompt has few, and each takes an answer."""
NEW_TOKENS, LONGEST_ANSWER = 32, 40
FloatArray = npt.NDArray[np.float32]


class Tower:
    """A tower's embeddings of every page, made when the tower is first used."""

    def __init__(self, tower: VisionTower, material: Material) -> None:
        self.bytes = tower.path.stat().st_size
        self._rows = [tower.encode(material.pixels(number)).rows for number in range(material.pages)]
        tower.close()

    def page(self, number: int) -> FloatArray:
        """Visual embeddings float32 [visual tokens, n_embd]."""
        return self._rows[number]

    def agreement(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Against the checkpoint's own embeddings."""
        found = compare_embeddings([answer.visual for answer in answers], self._rows)
        return {
            "cosine_mean": found.cosine_mean,
            "cosine_min": found.cosine_min,
            "relative_error": found.relative_error_mean,
        }


class Material:
    """Everything is made when it is first asked for, so that a resumed run makes what it still needs."""

    def __init__(self, source: str, pages: int, threads: int, work: Path) -> None:
        self.pages, self._threads, self._work = pages, threads, work
        self._checkpoint = resolve_source(source, work)
        self._family = find_family(self._checkpoint)
        self.sha256 = self._checkpoint.sha256()
        self._drawn = [layouts.make_page(FIRST_SEED + number, heldout=True) for number in range(pages)]
        options = ExportOptions(format="gguf", quant="f16", vision="fp16", verify=False)
        export_bundle(source, work / "plain.edge", options)
        self._candidate = Candidate(work / "plain.edge", threads)
        self._peaks = CachePeaks()
        self._text_dir = write_text_checkpoint(self._checkpoint, self._family, work / "text")

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self._checkpoint, self._family, resolve_task(self._checkpoint, self._family))

    @cached_property
    def answers(self) -> list[Answer]:
        """The checkpoint's answers in float32, one a page."""
        return [self._reference.answer(probe, new_tokens=NEW_TOKENS) for probe in self._probes]

    @cached_property
    def _probes(self) -> list[Probe]:
        return [
            Probe(page.questions[number % len(page.questions)].text, (np.asarray(page.image),))
            for number, page in enumerate(self._drawn)
        ]

    @cached_property
    def prepared(self) -> list[Prepared]:
        """The same prompts for the runtime."""
        return [self._prepare(probe) for probe in self._probes]

    def _prepare(self, probe: Probe) -> Prepared:
        return self._candidate.prepare(probe)

    def pixels(self, number: int) -> FloatArray:
        """Tiles of a page, float32 [tiles, 3, height, width]."""
        return self._candidate.prepare(self._probes[number]).pixels

    @cached_property
    def _pictures(self) -> Mapping[str, Moments]:
        take = self._peaks.take
        return gather_moments(self._reference, read_calibration(), after_each=lambda: take(self._reference.cache))

    @cached_property
    def _text(self) -> Mapping[str, Moments]:
        return gather_moments(self._reference, _text_probes(TEXT_POSITIONS), most=TEXT_POSITIONS)

    @cache  # noqa: B019  (one object lives as long as the process)
    def gguf(self, recipe: str, way: str) -> Path:
        """A GGUF decoder; ways: none, imatrix_text, imatrix_pictures, ours."""
        path = self._work / f"{recipe}-{way}.gguf"
        moments: Mapping[str, Moments] = {}
        if way != "none":
            moments = self._text if way == "imatrix_text" else self._pictures
        if way.startswith("imatrix"):
            moments = {name: Moments(value.rows, value.squares, None) for name, value in moments.items()}
        options = QuantiseOptions(moments=moments)
        write_decoder_gguf(self._text_dir, path, recipe, name="x", options=options)
        return path

    def decoder(self, recipe: Recipe, *, kv_q8: bool = False) -> tuple[Decoder, int]:
        """A calibrated decoder of any recipe, and its bytes; with ``kv_q8`` an ONNX one keeps its cache in 8 bits."""
        if recipe.component == "onnx":
            out = Path(mkdtemp(dir=self._work))
            moments = self._pictures
            peaks = self._peaks.layers if kv_q8 else None
            report = write_decoder_onnx(self._text_dir, out, recipe, moments=moments, cache_peaks=peaks)
            return self.ort(out), report.bytes + report.embedding_bytes
        path = Path(mkdtemp(dir=self._work)) / "decoder.gguf"
        options = options_of(recipe, self._pictures)
        write_decoder_gguf(self._text_dir, path, recipe.base, name="x", options=options)
        return self.llama(path), path.stat().st_size

    @cache  # noqa: B019
    def onnx(self, way: str) -> tuple[Path, int]:
        """An ONNX decoder's folder and its bytes; ways: rtn, kquant, hqq, ours, ours_kv_q8."""
        out = self._work / f"onnx-{way}"
        out.mkdir()
        recipe = find_recipe("onnx", "f32" if way == "hqq" else None)
        if way == "kquant":
            recipe = replace(recipe, builder_options={**recipe.builder_options, "algo_config": "k_quant"})
        moments = self._pictures if way.startswith("ours") else {}
        peaks = self._peaks.layers if way == "ours_kv_q8" else None
        write_decoder_onnx(self._text_dir, out, recipe, moments=moments, cache_peaks=peaks)
        if way == "hqq":
            _hqq(out)
        return out, sum((out / name).stat().st_size for name in (GRAPH, DATA))

    @cache  # noqa: B019
    def tower(self, recipe: str, *, sampled: bool) -> Tower:
        """A tower's embeddings."""
        out = self._work / f"{recipe}-{sampled}.onnx"
        pictures = [picture for probe in read_calibration() for picture in probe.pictures] if sampled else []
        samples = tower_samples(self._checkpoint, self._family, pictures)
        write_vision_onnx(self._checkpoint, self._family, out, find_recipe("vision", recipe), samples=samples)
        spec = self._candidate.spec
        return Tower(VisionTower(out, spec.vision, spec.decoder.n_embd, threads=self._threads), self)

    def llama(self, path: Path, *, kv_type: KVType | None = None) -> Decoder:
        """A decoder on llama.cpp."""
        return LlamaDecoder(path, self._candidate.spec.decoder, self._settings(kv_type))

    def ort(self, folder: Path, *, prompt: bool = False) -> Decoder:
        """A decoder on ONNX Runtime; with ``prompt``, and prompt weights, which are made when they are not there."""
        if prompt and not (folder / PROMPT).exists():
            write_prompt_onnx(self._text_dir, folder)
        files, spec = (folder / GRAPH, folder / EMBEDDINGS), self._candidate.spec.decoder
        return OrtDecoder(*files, spec, self._settings(None), prompt=folder / PROMPT if prompt else None)

    def _settings(self, kv_type: KVType | None) -> DecoderSettings:
        return DecoderSettings(threads=self._threads, n_ctx=2048, kv_type=kv_type)

    def checkpoint_answers(self) -> list[bool]:
        """Right or wrong for every question about the pages, the checkpoint in bfloat16."""
        import torch

        model, processor = evaluate.load(self._checkpoint.path, torch.bfloat16)
        asked = [(page.image, question.text) for page in self._drawn for question in page.questions]
        said = evaluate.answers(model, processor, asked, True)
        truth = [question.answer for page in self._drawn for question in page.questions]
        return [text == answer for text, answer in zip(said, truth, strict=True)]

    def bundle_answers(self, decoder: Decoder, tower: Tower) -> list[bool]:
        """The same for a decoder and a tower, greedily."""
        right = []
        for number, page in enumerate(self._drawn):
            for question in page.questions:
                prepared = self._prepare(Probe(question.text, (np.asarray(page.image),)))
                said = self._say(decoder, prefilled(CellCache(decoder), prepared, tower.page(number)))
                right.append(said == question.answer)
        decoder.close()
        return right

    def _say(self, decoder: Decoder, logits: FloatArray) -> str:
        stops, tokens = self._candidate.spec.prompt.stop_token_ids, list[int]()
        while len(tokens) < LONGEST_ANSWER and (token := int(logits.argmax())) not in stops:
            tokens.append(token)
            logits = decoder.step(token)
        return self._candidate.text(tokens).strip()


def _text_probes(positions: int) -> list[Probe]:
    """Questions with their answers as text, without the picture: the same words as in the calibration pages."""
    found: list[Probe] = []
    seed = TEXT_SEED
    while 4 * len(found) < positions:  # a prompt has more than four tokens
        page = layouts.make_page(seed, heldout=False, draw=False)
        found += [Probe(f"{question.text} {question.answer}", ()) for question in page.questions]
        seed += 1
    return found


def _hqq(folder: Path) -> None:
    """Quantise a float32 decoder in place with ONNX Runtime's half-quadratic quantisation."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model: Any = onnx.load_model(folder / GRAPH)
    config = HQQWeightOnlyQuantConfig(block_size=32, bits=4)
    quantizer = MatMulNBitsQuantizer(model, block_size=32, accuracy_level=4, algo_config=config)
    quantizer.process()
    for name in (GRAPH, DATA):
        (folder / name).unlink()
    made = quantizer.model.model
    onnx.save_model(made, folder / GRAPH, save_as_external_data=True, location=DATA, size_threshold=1024)
