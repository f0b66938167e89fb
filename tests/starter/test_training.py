"""The starter's training: it goes on from a checkpoint's own weights, and knows where answers begin and end."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from starter import model, optim, save, train_text  # noqa: E402

CHECKPOINT = Path(save.__file__).parent / "checkpoint"


def test_a_checkpoint_comes_back_as_it_was() -> None:
    """Every weight of the file is recovered, and collected again under its own name."""
    stored = load_file(CHECKPOINT / "model.safetensors")
    collected = save.collect(save.recover(CHECKPOINT))
    assert set(stored) - set(collected) <= {"lm_head.weight"}
    assert set(collected) - set(stored) <= {"lm_head.weight"}
    for name, weight in stored.items():
        if name in collected:
            assert torch.equal(collected[name].to(weight.dtype), weight)


def test_answers_begin_where_labels_do() -> None:
    labels = torch.tensor([[-100, -100, 7, 8, -100, 9, 3], [-100, 4, 5, -100, -100, -100, 6]])
    assert model.answers_of(labels).tolist() == [0, 0, 1, 1, 2, 2, 3]
    right = torch.tensor([True, False, True, True, True, True, False])
    assert train_text.right_answers({"labels": labels}, right).tolist() == [False, True, True, False]


def test_only_the_modules_named_learn() -> None:
    modules = {"one": torch.nn.Linear(4, 4), "two": torch.nn.Linear(4, 4)}
    trainer = optim.Trainer({"layers": torch.nn.ModuleDict({"layers": torch.nn.Linear(4, 4)}), **modules}, 0.1)
    before = {name: weight.detach().clone() for name, weight in trainer.high.items()}
    for weight in trainer.low.values():
        weight.grad = torch.ones_like(weight)
    trainer.step(1.0, ("two.",))
    changed = {name for name, weight in trainer.high.items() if not torch.equal(weight, before[name])}
    assert changed == {"two.weight", "two.bias"}
