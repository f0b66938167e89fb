"""What an answer will take, worked out from counts, sizes and speeds before anything is encoded."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from edge_mllm.answer.answer_plan import AnswerPlan, ImagePlan
from edge_mllm.answer.components import Components
from edge_mllm.answer.pictures.picture import ConversationPicture, reduction_usage
from edge_mllm.answer.rates import MeasuredRates, kept_rates
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.costs.facts import read_shape
from edge_mllm.costs.memory import (
    PROGRAM_BYTES,
    MemoryPlan,
    cache_cells,
    decoder_of,
    decoder_weights,
    missing_libraries,
    pictures_run,
    prefill_run,
    tower_of,
    tower_run,
    tower_weights,
)
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.llama.cache_types import bytes_per_value
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.errors import SettingError
from edge_mllm.machine.memory import resident_bytes
from edge_mllm.picture.tile_plan import low_detail, plan_tiles
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.prompt.build import PromptIds

_PROBE_TOKENS = 64
_PROBE_SIZE = (1024, 768)


class Planner:
    """Knows the parts of a model and how fast they were."""

    def __init__(self, parts: Components) -> None:
        self._parts = parts
        spec = parts.spec
        self._shape = read_shape(spec.recipe.get("vision", {}).get("shape")) if spec is not None else None
        self.rates = MeasuredRates(whole=spec is not None and spec.vision.patches is not None)
        self._looked = False

    def plan(
        self, prompt: PromptIds, pictures: Sequence[ConversationPicture], max_new_tokens: int, kept: int
    ) -> AnswerPlan:
        """Counts, bytes and seconds of an answer.

        Args:
            prompt: Of the whole conversation.
            pictures: All of its pictures.
            max_new_tokens: Most tokens of the answer.
            kept: Cells of the prompt that the decoder has.
        """
        decoder, count = self._parts.decoder, len(prompt.ids)
        self._look_up(count)
        ends = [slot.start + slot.length for slot in prompt.slots]
        new = [each for each, end in zip(pictures, ends, strict=True) if end > kept and not each.encoded]
        work = sum(self.rates.work(each.usage.tiles, each.tokens) for each in new)
        rates, cell = self.rates.now, decoder.cell_bytes
        return AnswerPlan(
            images=tuple(ImagePlan.of(each.usage) for each in pictures),
            prompt_tokens=count,
            image_tokens=prompt.image_tokens,
            reused_tokens=kept,
            context=decoder.n_ctx,
            fits=count + 1 <= decoder.n_ctx,
            file_bytes=self._parts.reader.weight_bytes(pictures=bool(pictures)),
            cache_bytes=None if cell is None else cell * min(decoder.n_ctx, count + max_new_tokens),
            vision_s=0.0 if not work else None if rates.tile_s is None else rates.tile_s * work,
            prefill_s=None if rates.token_s is None else rates.token_s * (count - kept),
            preprocess_s=rates.cut_s * work,
            rates=rates.source or None,
            reduction=reduction_usage(pictures),
            memory=self._memory(new, count, max_new_tokens, kept),
        )

    def measure(self, watch: Stopwatch, *, pictures: bool) -> None:
        """Measure one tile and a short prefill where no speed is known; it counts as the answer's time.

        Raises:
            SettingError: It cannot be measured without taking what the limits are there to save.
        """
        parts, rates, spec = self._parts, self.rates.now, self._parts.spec
        if (rates.tile_s is not None or not pictures) and rates.token_s is not None:
            return
        if spec is None:
            raise SettingError("max_ttft needs a bundle: how a GGUF file's pictures are cut is known to libmtmd alone")
        decoder = parts.decoder
        if isinstance(decoder, LazyDecoder) and not decoder.opened:
            raise SettingError(
                "max_ttft with low memory needs speeds that were measured before: run edge-mllm tune with this model"
            )
        with watch.stage("probe"):
            tile_s, cut_s = rates.tile_s, rates.cut_s
            if pictures and tile_s is None:
                start = time.perf_counter()
                blank = np.zeros((_PROBE_SIZE[1], _PROBE_SIZE[0], 3), np.uint8)
                tiler = low_detail(spec.image.tiler, *_PROBE_SIZE)
                cut = cut_tiles(blank, spec.image, spec.vision, plan_tiles(*_PROBE_SIZE, tiler))
                work = self.rates.work(cut.plan.count, cut.tokens)
                cut_s = (time.perf_counter() - start) / work
                tile_s = parts.encoder.probe(cut.pixels, cut.plan.grids, watch) / work
            token_s = rates.token_s or self._prefill_probe()
        self.rates.probed(tile_s=tile_s, token_s=token_s, cut_s=cut_s)

    def _prefill_probe(self) -> float:
        """Seconds of prefill for one token; the decoder's cache is afterwards what it was."""
        decoder = self._parts.decoder
        before = decoder.state() if decoder.n_past else None
        tokens = np.arange(min(_PROBE_TOKENS, decoder.n_ctx - 1), dtype=np.int64) % decoder.n_vocab
        try:
            decoder.truncate(0)
            decoder.warm(len(tokens))
            start = time.perf_counter()
            decoder.prefill([Tokens(tokens)])
            seconds = time.perf_counter() - start
        finally:  # an interrupted probe must leave none of its cells: the cache takes them for a prompt's
            decoder.truncate(0)
        if before is not None:
            decoder.restore(before)
        return seconds / len(tokens)

    def _look_up(self, prompt: int) -> None:
        """Look once for speeds that were kept, when they are first asked for."""
        if not self._looked:
            parts = self._parts
            if parts.place.npu is None:  # nothing is kept of NPUs
                engines = (parts.engine, parts.place.engine)
                self.rates.before = kept_rates(parts.path, parts.spec, engines, parts.settings, prompt)
            self._looked = True

    def _memory(self, new: Sequence[ConversationPicture], count: int, max_new_tokens: int, kept: int) -> MemoryPlan:
        parts, decoder, spec = self._parts, self._parts.decoder, self._parts.spec
        weights = parts.reader.weight_bytes(pictures=False)
        waiting = isinstance(decoder, LazyDecoder) and not decoder.opened
        there = decoder.n_past
        cells = cache_cells(min(count + max_new_tokens, decoder.n_ctx), there, decoder.n_ctx)
        now = resident_bytes()
        tower = loading = run = 0
        if new and spec is not None:
            if not parts.tower.loaded:
                size = parts.reader.weight_bytes(pictures=True) - weights
                tower, loading = tower_weights(size, spec.parts["vision"].precision)
            shape = tower_of(self._shape)
            run = max(tower_run(spec.vision, shape, each.usage.tiles, each.tokens) for each in new)
        run = max([run, *(each.cutting_bytes for each in new)])
        held, decoding = pictures_run(each.header for each in new if each.header is not None)
        needed = {"onnxruntime"} if new and spec is not None else set()
        if waiting:
            needed.add("llama_cpp" if parts.engine == "gguf" else "onnxruntime")
        return MemoryPlan(
            library_bytes=missing_libraries(needed),
            now_bytes=now if now is not None else PROGRAM_BYTES + (0 if waiting else weights),
            decoder_bytes=decoder_weights(weights if waiting else decoder.waiting_bytes(count - kept), parts.engine),
            tower_bytes=tower,
            loading_bytes=loading,
            tower_run_bytes=run,
            picture_bytes=held,
            decoding_bytes=decoding,
            cache_bytes=cells * self._cell_bytes() + (self._shape.decoder.state_bytes if self._shape else 0),
            prefill_bytes=prefill_run(
                decoder_of(self._shape), decoder.n_embd, min(parts.settings.chunk, count - kept), count
            ),
            in_turn=waiting,
        )

    def _cell_bytes(self) -> int:
        """Of one cell of the cache; before a decoder is loaded, by its shape or, where that is unknown, at most."""
        parts = self._parts
        if parts.decoder.cell_bytes is not None:
            return parts.decoder.cell_bytes
        kv_type = parts.settings.kv_type or ("f16" if parts.engine == "gguf" else "f32")
        value = bytes_per_value(kv_type)
        if self._shape is not None:
            return int(self._shape.decoder.kv_bytes(1, value))
        layers = parts.spec.decoder.n_layer if parts.spec is not None else 0
        return int(2 * layers * parts.decoder.n_embd * value)
