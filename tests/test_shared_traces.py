"""A trace is shared by modules that are the same in everything, and by no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shared_traces import SharedTraces, UnknownError, digest_of


def _module(seed: int = 0, **settings: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.GELU())
    for name, value in settings.items():
        setattr(made[1], name, value)
    return made


def test_equal_modules_have_one_digest() -> None:
    assert digest_of(_module(), (32, 32)) == digest_of(_module(), (32, 32))


@pytest.mark.parametrize(
    "other",
    [
        (_module(1), (32, 32)),
        (_module(), (32, 48)),
        (_module(approximate="tanh"), (32, 32)),
        (_module(extra={"a"}), (32, 32)),
        (_module().to(torch.bfloat16), (32, 32)),
        (torch.nn.Sequential(*_module(), torch.nn.Identity()), (32, 32)),
    ],
    ids=["weights", "picture", "setting", "new setting", "type", "layers"],
)
def test_another_module_has_another(other: tuple[object, ...]) -> None:
    assert digest_of(*other) != digest_of(_module(), (32, 32))


@pytest.mark.parametrize("value", [lambda x: x, _module().forward, object()], ids=["lambda", "bound method", "object"])
def test_what_cannot_be_read_is_traced_every_time(tmp_path: Path, value: object) -> None:
    with pytest.raises(UnknownError):
        digest_of(_module(given=value))
    traced = []
    shared = SharedTraces(tmp_path, lambda *arguments: traced.append(arguments))
    for _ in range(2):
        shared.trace(_module(given=value), (32, 32), "mha")
    assert len(traced) == 2 and not [*tmp_path.iterdir()]


def test_a_trace_is_made_once_and_its_copies_may_be_changed(tmp_path: Path) -> None:
    from onnx import helper

    made = []

    def trace(*_: object) -> object:
        made.append(helper.make_model(helper.make_graph([], "tower", [], [])))
        return made[-1]

    first, second, third = (SharedTraces(tmp_path, trace).trace(_module(), (32, 32), "mha") for _ in range(3))
    assert len(made) == 1 and first == second == third
    second.graph.name = "changed"
    assert third.graph.name == "tower"
