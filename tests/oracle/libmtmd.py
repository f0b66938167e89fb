"""llama.cpp's own multimodal library, run on a decoder and an mmproj file as they are."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.machine.llama import library, load_model

MARKER = "<__media__>"
_IMAGE = 1
_F32 = 0


@dataclass(frozen=True)
class Evaluated:
    """What libmtmd made of a prompt."""

    ids: list[int]
    """Text token ids, with ``image_token`` repeated once per visual token."""
    image_tokens: int
    embeddings: np.ndarray
    """Visual embeddings, float32 [image_tokens, n_embd]."""
    logits: np.ndarray
    """Of the last position, float32 [n_vocab]."""
    answer: list[int]
    """Greedy continuation."""


@functools.cache
def _quiet() -> Any:
    """A log that says nothing; one for the process, because libmtmd keeps it."""
    return library().api.llama_log_callback(lambda _level, _text, _data: None)


class LibMtmd:
    """Decoder and tower loaded side by side; KV cache in F32."""

    def __init__(self, decoder: Path, mmproj: Path, *, n_ctx: int = 2048) -> None:
        from llama_cpp import mtmd_cpp

        self.llama, self.mtmd = library().api, mtmd_cpp
        mtmd_cpp.mtmd_log_set(_quiet(), ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(_quiet(), ctypes.c_void_p(0))
        self._handle = load_model(decoder, mmap=True)
        self.model = self._handle.address
        parameters = self.llama.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = n_ctx
        parameters.n_threads = parameters.n_threads_batch = 2
        parameters.type_k = parameters.type_v = _F32
        parameters.flash_attn_type = self.llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = self.llama.llama_init_from_model(self.model, parameters)
        assert self.context
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        options = mtmd_cpp.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings, options.warmup = False, 2, False, False
        self.tower = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), self.model, options)
        assert self.tower, f"libmtmd does not load {mmproj}"

    def close(self) -> None:
        self.mtmd.mtmd_free(self.tower)
        self.llama.llama_free(self.context)
        self._handle.close()

    def evaluate(self, prompt: str, picture: np.ndarray, *, image_token: int, count: int = 8) -> Evaluated:
        """Run a prompt with one picture, uint8 [height, width, 3], where MARKER stands, and continue greedily."""
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        with self._chunks(prompt, picture) as chunks:
            parts = [self._read(chunk, image_token) for chunk in chunks]
            position = 0
            for index, chunk in enumerate(chunks):
                position = self._advance(chunk, position, last=index == len(chunks) - 1)
        logits = self._logits()
        answer = [int(logits.argmax())]
        while len(answer) < count and not self.llama.llama_vocab_is_eog(self.vocab, answer[-1]):
            token = (ctypes.c_int32 * 1)(answer[-1])
            assert self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(token, 1)) == 0
            answer.append(int(self._logits().argmax()))
        ids = [token for part, _ in parts for token in part]
        pieces = [rows for _, rows in parts if rows is not None]
        return Evaluated(ids, ids.count(image_token), np.concatenate(pieces), logits, answer)

    @contextmanager
    def _chunks(self, prompt: str, picture: np.ndarray) -> Iterator[list[Any]]:
        data = np.ascontiguousarray(picture, np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = self.mtmd.mtmd_bitmap_init(data.shape[1], data.shape[0], pointer)
        found = self.mtmd.mtmd_input_chunks_init()
        text = self.mtmd.mtmd_input_text(prompt.encode(), len(prompt.encode()), False, True)
        bitmaps = (self.mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            assert self.mtmd.mtmd_tokenize(self.tower, found, ctypes.byref(text), bitmaps, 1) == 0
            count = self.mtmd.mtmd_input_chunks_size(found)
            yield [self.mtmd.mtmd_input_chunks_get(found, i) for i in range(count)]
        finally:
            self.mtmd.mtmd_input_chunks_free(found)
            self.mtmd.mtmd_bitmap_free(bitmap)

    def _read(self, chunk: Any, image_token: int) -> tuple[list[int], np.ndarray | None]:
        if self.mtmd.mtmd_input_chunk_get_type(chunk) == _IMAGE:
            count = self.mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            assert self.mtmd.mtmd_encode_chunk(self.tower, chunk) == 0
            rows = self.mtmd.mtmd_get_output_embd(self.tower)
            width = self.llama.llama_model_n_embd_inp(self.model)
            return [image_token] * count, np.ctypeslib.as_array(rows, (count, width)).copy()
        length = ctypes.c_size_t()
        tokens = self.mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
        return list(tokens[: length.value]), None

    def _advance(self, chunk: Any, position: int, *, last: bool) -> int:
        after = self.llama.llama_pos(position)
        status = self.mtmd.mtmd_helper_eval_chunk_single(
            self.tower, self.context, chunk, position, 0, 2048, last, ctypes.byref(after)
        )
        assert status == 0
        return int(after.value)

    def _logits(self) -> np.ndarray:
        size = self.llama.llama_vocab_n_tokens(self.vocab)
        rows = self.llama.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(rows, (size,)).copy()
