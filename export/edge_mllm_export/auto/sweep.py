"""``--quant auto``: what each component loses at each precision is measured, and the best mixture is taken.

Decoders are measured on the checkpoint's own visual embeddings, towers through a decoder of 8 bits; what a tower costs
is the difference to that decoder's own loss. Parts of a GGUF decoder are measured one at a time against 8 bits
everywhere; the best mixtures by the sum are then put together and measured whole, beside every fixed recipe, so nothing
is chosen that was not measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm_export.auto.choice import Measured, choose
from edge_mllm_export.auto.gguf import BASE, TYPES, Donors, Variant, mixed_recipe
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.mixture import Choice, Mixture, combine, front, spread
from edge_mllm_quant.recipes.recipe import Component, Recipe, find_recipe

if TYPE_CHECKING:
    from edge_mllm_export.auto.choice import Losses
    from edge_mllm_export.auto.ground import Ground
    from edge_mllm_export.job import Job
    from edge_mllm_export.options import ExportOptions

Announce = Callable[[str], None]
FIXED: Mapping[Component, tuple[str, ...]] = {
    "gguf": ("q4_0", "iq4_nl", "q4_k_m", "q8_0"),
    "onnx": ("int4_b128", "int4_b64", "int4_b32", "int4_mixed", "int8_b32"),
    "vision": ("fp16", "int8", "int4"),
}
_MIXTURES = 12
"""Mixtures of a GGUF decoder that are put together and measured, from the smallest to the largest; some more are
measured that come near the size asked for."""


@dataclass(frozen=True)
class Sweep:
    """Everything that was measured, and what was chosen."""

    measured: tuple[Measured, ...]
    parts: tuple[dict[str, Any], ...]
    """Parts of a GGUF decoder at each type: what the mixtures were made from."""
    chosen: Mapping[Component, Measured]
    prompts: int
    positions: int

    @property
    def recipes(self) -> dict[Component, Recipe]:
        """What to export."""
        return {component: item.recipe for component, item in self.chosen.items()}


def sweep(job: Job, ground: Ground, options: ExportOptions, announce: Announce) -> Sweep:
    """Measure every component and choose.

    Args:
        job: The engines and the tower wanted are those of its recipes.
        ground: What is measured on.
        options: The limits, and whether the tower's recipe was named.
        announce: Told about each component.

    Raises:
        MixtureError: Nothing stays within the limits.
    """
    maker = _Maker(job, ground)
    announce("measuring vision towers")
    towers = list(maker.towers(FIXED["vision"] if options.vision is None else (options.vision_names[0] or "",)))
    found, parts = [*towers], list[dict[str, Any]]()
    if "onnx" in job.recipes:
        announce("measuring onnx decoders")
        found += [maker.onnx(find_recipe("onnx", name)) for name in FIXED["onnx"]]
    if "gguf" in job.recipes:
        announce("measuring gguf decoders")
        found += [maker.gguf(find_recipe("gguf", name)) for name in FIXED["gguf"]]
        announce("measuring parts of the gguf decoder")
        parts, mixtures = maker.parts([] if options.max_size is None else [options.max_size - t.bytes for t in towers])
        announce("measuring mixtures of the gguf decoder")
        found += [maker.mixture(types) for types in mixtures]
    chosen = choose(found, options.max_size, options.max_loss)
    shutil.rmtree(maker.place)
    return Sweep(tuple(found), tuple(parts), chosen, len(ground.prepared), ground.positions)


class _Maker:
    """Writes variants into the scratch directory, measures them and deletes them."""

    def __init__(self, job: Job, ground: Ground) -> None:
        self.job, self.ground = job, ground
        self.place = job.work / "sweep"
        self.text = write_text_checkpoint(job.checkpoint, job.family, self.place / "text")
        self.donors = Donors(self.text, self.place, job.moments)

    def towers(self, names: Sequence[str]) -> Iterator[Measured]:
        """Towers, by what they add to the loss of the carrying decoder."""
        from edge_mllm_export.write.vision.tower import write_vision_onnx

        base = self._carried(None)
        for name in names:
            recipe, out = find_recipe("vision", name), self.place / f"{name}.onnx"
            written = write_vision_onnx(
                self.job.checkpoint, self.job.family, out, recipe, samples=self.job.tower_samples
            )
            visual = self.ground.embeddings(out)
            size = sum(path.stat().st_size for path in written.files)
            yield Measured("vision", recipe, size, self._carried(visual) - base, self.ground.cosine(visual))

    def _carried(self, visual: Any) -> Losses:
        engine = self.ground.carrier.spec.engines[0]
        with self.ground.carrier.model(engine, n_ctx=self.ground.n_ctx, exact=False) as model:
            return self.ground.losses(model.decoder, visual)

    def gguf(self, recipe: Recipe) -> Measured:
        """One GGUF decoder, made, measured and deleted."""
        made = self.donors.recipe(recipe)
        return Measured("gguf", recipe, made.bytes, self._losses(made))

    def mixture(self, types: Mapping[str, str]) -> Measured:
        """One that is put together: parts -> types."""
        made = self.donors.mixture(types)
        return Measured("gguf", mixed_recipe(types), made.bytes, self._losses(made))

    def _losses(self, made: Variant) -> Losses:
        from edge_mllm.decoders.llama.decoder import LlamaDecoder

        losses = self.ground.losses(LlamaDecoder(made.path, self.ground.carrier.spec.decoder, self._settings()))
        made.path.unlink()
        return losses

    def onnx(self, recipe: Recipe) -> Measured:
        """One ONNX decoder, made, measured and deleted."""
        from edge_mllm.decoders.ort.decoder import OrtDecoder
        from edge_mllm_export.write.onnx.decoder import EMBEDDINGS, GRAPH, write_decoder_onnx

        out = self.place / "onnx"
        out.mkdir()
        attention = self.ground.carrier.spec.decoder.image_attention
        report = write_decoder_onnx(self.text, out, recipe, moments=self.job.moments, image_attention=attention)
        decoder = OrtDecoder(out / GRAPH, out / EMBEDDINGS, self.ground.carrier.spec.decoder, self._settings())
        losses = self.ground.losses(decoder)
        shutil.rmtree(out)
        return Measured("onnx", recipe, report.bytes + report.embedding_bytes, losses)

    def _settings(self) -> Any:
        from edge_mllm.decoders.settings import DecoderSettings

        return DecoderSettings(threads=self.ground.threads, n_ctx=self.ground.n_ctx)

    def parts(self, sizes: Sequence[int]) -> tuple[list[dict[str, Any]], list[Mapping[str, str]]]:
        """Each part of a GGUF decoder at each type, and the mixtures that promise most.

        Args:
            sizes: Bytes that a whole decoder may have; the best mixture within each is among those returned.
        """
        base = self.donors.mixture({})
        base_losses = self._losses(base)
        parts, choices = self.donors.parts(), dict[str, list[Choice]]()
        for group, mine in parts.items():
            choices[group] = [Choice(BASE, sum(base.tensors[name] for name in mine), 0.0)]
            for kind in (kind for kind in TYPES if kind != BASE):
                made = self.donors.mixture({group: kind})
                size = sum(made.tensors[name] for name in mine)
                added = float((self._losses(made) - base_losses).sum())
                if size < choices[group][0].bytes:
                    choices[group].append(Choice(kind, size, max(0.0, added)))
        rows = [
            {"part": group, "type": choice.name, "bytes": choice.bytes, "loss": choice.loss}
            for group, entries in choices.items()
            for choice in entries
        ]
        rest = base.bytes - sum(entries[0].bytes for entries in choices.values())
        return rows, _promising(front(combine(choices)), [size - rest for size in sizes])


def _promising(mixtures: Sequence[Mixture[str]], sizes: Sequence[int]) -> list[Mapping[str, str]]:
    """Parts -> types of some mixtures along the front, and of the last within each size; not all parts in 8 bits."""
    within = [[mixture for mixture in mixtures if mixture.bytes <= size] for size in sizes]
    best = [*spread(mixtures, _MIXTURES), *(fitting[-1] for fitting in within if fitting)]
    found = [{part: item.name for part, item in mixture.choices.items()} for mixture in best]
    distinct = {tuple(types.items()): types for types in found}
    return [types for types in distinct.values() if set(types.values()) != {BASE}]
