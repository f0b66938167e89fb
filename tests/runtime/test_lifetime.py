"""A model that is dropped without ``close`` gives its memory back, and nothing is freed twice or too early."""

import gc
import os
import weakref

import numpy as np
import pytest

import edge_mllm
from edge_mllm.errors import ClosedError
from edge_mllm.machine.memory import resident_bytes
from edge_mllm.machine.native import NativeHandle

PIXELS = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def load(bundle, engine):
    return edge_mllm.load(bundle, engine=engine, check_hashes=False, threads=1, kv_type="f32")


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_dropped_models_go_at_once_and_forty_loads_stay_flat(tiny_bundle, engine):
    """Without the collector's help: a loop that only loads and asks may not wake it for a long time."""
    sizes, decoders = [], []
    gc.collect()
    gc.disable()
    try:
        for _ in range(40):
            model = load(tiny_bundle, engine)
            model.generate("Hello", [PIXELS], max_new_tokens=2)
            decoders.append(weakref.ref(model.decoder))
            del model
            assert decoders[-1]() is None
            sizes.append(resident_bytes() or 0)
    finally:
        gc.enable()
    assert max(sizes[10:]) - sizes[4] < 16e6, sizes


def test_native_memory_is_freed_with_the_model_that_held_it(tiny_bundle, monkeypatch):
    from edge_mllm.machine.llama import library

    freed = []
    for name in ("llama_free", "llama_model_free"):
        genuine = getattr(library().api, name)
        monkeypatch.setattr(library().api, name, lambda handle, f=genuine, n=name: (freed.append(n), f(handle)))
    model = load(tiny_bundle, "gguf")
    model.generate("Hello", max_new_tokens=2)
    freed.clear()  # the context that asks how the model takes its token rows
    del model
    assert freed == ["llama_free", "llama_model_free"]


def test_an_open_stream_keeps_the_model(tiny_bundle):
    model = load(tiny_bundle, "gguf")
    expected = model.generate("Hello", max_new_tokens=5, ignore_eos=True).text
    stream = model.stream("Hello", max_new_tokens=5, ignore_eos=True)
    pieces = [next(stream)]
    del model
    gc.collect()
    assert "".join(piece.text for piece in [*pieces, *stream]) == expected


def test_a_handle_is_freed_once_and_after_what_needs_it():
    freed = []
    model = NativeHandle("model", freed.append)
    context = NativeHandle("context", freed.append, model)
    del model
    gc.collect()
    assert freed == []
    context.close()
    context.close()
    assert freed[0] == "context"
    with pytest.raises(ClosedError):
        _ = context.address
    del context
    gc.collect()
    assert freed == ["context", "model"]


def test_a_forked_child_frees_nothing(monkeypatch):
    freed = []
    handle = NativeHandle("model", freed.append)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    handle.close()
    assert freed == []
