"""``--quant auto``: what each component loses at each precision is measured, and the cheapest mixture is taken.

Decoders are measured on the checkpoint's own visual embeddings, towers through a decoder of 8 bits; what a tower costs
is the difference to that decoder's own loss. Parts of a GGUF decoder are measured one at a time against 8 bits
everywhere; the best mixtures by the sum are then made and measured whole, beside every fixed recipe, so nothing is
chosen that was not measured.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.text_model import write_text_checkpoint
from edge_mllm_quant.mixture import Choice, Mixture, combine, front, pick, spread
from edge_mllm_quant.override import Override, apply_overrides, tensor_expression
from edge_mllm_quant.recipe import Component, Recipe, find_recipe

if TYPE_CHECKING:
    from edge_mllm_export.options import ExportOptions
    from edge_mllm_export.parts import Job
    from edge_mllm_export.sweep_ground import Ground

Announce = Callable[[str], None]
GROUPS: Mapping[str, tuple[str, ...]] = {
    "head": ("head",),
    "embeddings": ("embeddings",),
    "attention": ("blk.*.attn_q", "blk.*.attn_k", "blk.*.attn_v", "blk.*.attn_output"),
    "feed-forward up": ("blk.*.ffn_up", "blk.*.ffn_gate"),
    "feed-forward down": ("blk.*.ffn_down",),
}
"""Parts of a GGUF decoder -> targets of ``--override``."""
TYPES = ("q4_0", "iq4_nl", "q4_k", "q5_0", "q6_k", "q8_0")
FIXED: Mapping[Component, tuple[str, ...]] = {
    "gguf": ("q4_0", "iq4_nl", "q4_k_m", "q8_0"),
    "onnx": ("int4_b32", "int4_mixed", "int8_b32"),
    "vision": ("fp16", "int8", "int4"),
}
BASE = "q8_0"
_MIXED_BITS = 5.5
"""Nominal; few enough to be calibrated, too many to be called 4-bit."""
_MIXTURES = 8
"""Mixtures of a GGUF decoder that are made and measured."""


@dataclass(frozen=True)
class Measured:
    """One way of storing one component, made and measured."""

    component: Component
    recipe: Recipe
    bytes: int
    loss: float
    """Nats per token."""
    cosine: float | None = None
    """Of visual tokens, towers only."""

    @property
    def label(self) -> str:
        """The recipe's name with its exceptions."""
        return " ".join([self.recipe.name, *self.recipe.overrides])

    @property
    def row(self) -> dict[str, Any]:
        """For the report."""
        fields = {"component": self.component, "name": self.label, "bytes": self.bytes, "loss": self.loss}
        return fields if self.cosine is None else {**fields, "cosine": self.cosine}


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
    found = list(maker.towers(FIXED["vision"] if options.vision is None else (options.vision,)))
    parts: list[dict[str, Any]] = []
    for engine in [name for name in ("onnx", "gguf") if name in job.recipes]:
        announce(f"measuring {engine} decoders")
        found += [maker.decoder(engine, find_recipe(engine, name)) for name in FIXED[engine]]
        if engine == "gguf":
            parts, mixtures = maker.parts()
            found += [maker.decoder("gguf", recipe) for recipe in mixtures]
    chosen = choose(found, options.max_size, options.max_loss)
    shutil.rmtree(maker.place)
    return Sweep(tuple(found), tuple(parts), chosen, len(ground.prepared), ground.positions)


def choose(found: Sequence[Measured], max_bytes: int | None, max_loss: float | None) -> dict[Component, Measured]:
    """One tower and one decoder per engine; the limits hold for what an engine loads: its decoder and the tower.

    Raises:
        MixtureError: Nothing stays within them.
    """
    known = {f"{item.component} {item.label}": item for item in found}
    by_part: dict[Component, list[Choice]] = {}
    for key, item in known.items():
        by_part.setdefault(item.component, []).append(Choice(key, item.bytes, item.loss))
    engines: list[Component] = [part for part in by_part if part != "vision"]
    best: Mixture[Component] | None = None
    for tower in by_part["vision"]:
        try:
            picked = [
                pick(combine({"vision": [tower], engine: by_part[engine]}), max_bytes=max_bytes, max_loss=max_loss)
                for engine in engines
            ]
        except ValueError:
            continue
        whole: Mixture[Component] = Mixture(
            {part: item for mixture in picked for part, item in mixture.choices.items()}
        )
        if best is None or _order(whole, max_loss) < _order(best, max_loss):
            best = whole
    if best is None:  # the reason, for the engine that asks for most
        for engine in engines:
            everything = combine({"vision": by_part["vision"], engine: by_part[engine]})
            pick(everything, max_bytes=max_bytes, max_loss=max_loss)
        raise AssertionError("every engine can be had alone, so the tower they need is one that both can have")
    return {part: known[choice.name] for part, choice in best.choices.items()}


def _order(mixture: Mixture[Component], max_loss: float | None) -> tuple[float, float]:
    """Smaller first where the loss is limited, else of less loss first."""
    pair = (float(mixture.bytes), mixture.loss)
    return pair if max_loss is not None else pair[::-1]


class _Maker:
    """Writes variants into the scratch directory, measures them and deletes them."""

    def __init__(self, job: Job, ground: Ground) -> None:
        self.job, self.ground = job, ground
        self.place = job.work / "sweep"
        self.text = write_text_checkpoint(job.checkpoint, job.family, self.place / "text")

    def towers(self, names: Sequence[str]) -> Iterator[Measured]:
        """Towers, by what they add to the loss of the carrying decoder."""
        from edge_mllm_export.vision_onnx import write_vision_onnx

        base = self._carried(None)
        for name in names:
            recipe, out = find_recipe("vision", name), self.place / f"{name}.onnx"
            written = write_vision_onnx(
                self.job.checkpoint, self.job.family, out, recipe, samples=self.job.tower_samples
            )
            visual = self.ground.embeddings(out)
            size = sum(path.stat().st_size for path in written.files)
            loss = max(0.0, self._carried(visual) - base)
            yield Measured("vision", recipe, size, loss, self.ground.cosine(visual))

    def _carried(self, visual: Any) -> float:
        engine = self.ground.carrier.spec.engines[0]
        decoder = self.ground.carrier.decoder(engine, n_ctx=self.ground.n_ctx, exact=False)
        return self.ground.loss(decoder, visual)

    def decoder(self, engine: Component, recipe: Recipe) -> Measured:
        """One decoder, made, measured and deleted."""
        size, loss = self._onnx(recipe) if engine == "onnx" else self._gguf(recipe)[:2]
        return Measured(engine, recipe, size, loss)

    def _gguf(self, recipe: Recipe) -> tuple[int, float, dict[str, int]]:
        from edge_mllm.decoders.llama import LlamaDecoder
        from edge_mllm_export.decoder_gguf import write_decoder_gguf
        from edge_mllm_export.gguf_header import read_header
        from edge_mllm_export.gguf_quantise import options_of

        path = self.place / "variant.gguf"
        write_decoder_gguf(self.text, path, recipe.base, name="x", options=options_of(recipe, self.job.moments))
        loss = self.ground.loss(LlamaDecoder(path, self.ground.carrier.spec.decoder, self._settings()))
        sizes = {name: entry.nbytes for name, entry in read_header(path).tensors.items()}
        total = path.stat().st_size
        path.unlink()
        return total, loss, sizes

    def _onnx(self, recipe: Recipe) -> tuple[int, float]:
        from edge_mllm.decoders.ort import OrtDecoder
        from edge_mllm_export.decoder_onnx import EMBEDDINGS, GRAPH, write_decoder_onnx

        out = self.place / "onnx"
        out.mkdir()
        attention = self.ground.carrier.spec.decoder.image_attention
        report = write_decoder_onnx(self.text, out, recipe, moments=self.job.moments, image_attention=attention)
        decoder = OrtDecoder(out / GRAPH, out / EMBEDDINGS, self.ground.carrier.spec.decoder, self._settings())
        loss = self.ground.loss(decoder)
        shutil.rmtree(out)
        return report.bytes + report.embedding_bytes, loss

    def _settings(self) -> Any:
        from edge_mllm.decoders.settings import DecoderSettings

        return DecoderSettings(threads=self.ground.threads, n_ctx=self.ground.n_ctx)

    def parts(self) -> tuple[list[dict[str, Any]], list[Recipe]]:
        """Each part of a GGUF decoder at each type, and the mixtures that promise most."""
        _, base_loss, base = self._gguf(find_recipe("gguf", BASE))
        choices: dict[str, list[Choice]] = {}
        for group, mine in _present(base).items():
            choices[group] = [Choice(BASE, sum(base[name] for name in mine), 0.0)]
            for kind in TYPES:
                if kind == BASE:
                    continue
                _, loss, sizes = self._gguf(mixed_recipe({group: kind}))
                size = sum(sizes[name] for name in mine)
                if size < choices[group][0].bytes:
                    choices[group].append(Choice(kind, size, max(0.0, loss - base_loss)))
        rows = [
            {"part": group, "type": choice.name, "bytes": choice.bytes, "loss": choice.loss}
            for group, entries in choices.items()
            for choice in entries
        ]
        best = spread(front(combine(choices)), _MIXTURES)
        return rows, [mixed_recipe({part: item.name for part, item in mixture.choices.items()}) for mixture in best]


def mixed_recipe(types: Mapping[str, str]) -> Recipe:
    """A GGUF recipe of 8 bits with other types for some parts (keys of :data:`GROUPS`)."""
    overrides = [Override(target, kind) for group, kind in types.items() for target in GROUPS[group] if kind != BASE]
    recipe = replace(find_recipe("gguf", BASE), name="mixed", gguf_type=BASE, bits=_MIXED_BITS)
    return apply_overrides({"gguf": recipe}, overrides)["gguf"]


def _present(tensors: Mapping[str, int]) -> dict[str, list[str]]:
    """The groups of this decoder -> its tensors. Without a head of its own, the embedding table is the head."""
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    found = {"head": [head], "embeddings": [name for name in ("token_embd.weight",) if name != head]}
    for group, targets in GROUPS.items():
        if group not in found:
            patterns = [tensor_expression(target) for target in targets]
            found[group] = [name for name in tensors if any(re.search(pattern, name) for pattern in patterns)]
    return {group: names for group, names in found.items() if names}
