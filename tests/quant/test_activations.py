"""Second moments of linear layers' inputs, against the same sums written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edge_mllm_quant.weights.activations import gathering


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.down = torch.nn.Linear(6, 8), torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.left(x) * self.right(x))


def test_moments_are_the_means_over_all_positions() -> None:
    torch.manual_seed(0)
    net, batches = _Net(), [torch.randn(2, 700, 6), torch.randn(1, 1, 6)]
    with torch.no_grad(), gathering(net, products_below=8) as gatherer:
        for batch in batches:
            net(batch)
        found = gatherer.moments()
    net(batches[0])  # after the context nothing is watched
    rows = torch.cat([batch.flatten(0, 1) for batch in batches]).numpy()
    assert set(found) == {"left", "right", "down"}
    assert found["left"].rows == len(rows) == 1401
    assert np.allclose(found["left"].products, rows.T @ rows / len(rows), atol=1e-5)
    assert np.allclose(found["left"].squares, np.square(rows).mean(0), atol=1e-5)
    assert found["right"] is found["left"], "layers that read one tensor share one sum"
    assert found["down"].products is None and found["down"].squares.shape == (8,)


def test_products_in_files_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, batches = _Net(), [torch.randn(3, 700, 6), torch.randn(1, 9, 6)]
    found = []
    for directory in (None, tmp_path):
        with torch.no_grad(), gathering(net, products_below=8, directory=directory) as gatherer:
            for batch in batches:
                net(batch)
            found.append(gatherer.moments())
    assert found[0]["left"].rows == found[1]["left"].rows
    assert np.array_equal(found[0]["left"].products, found[1]["left"].products)
    assert np.array_equal(found[0]["left"].squares, found[1]["left"].squares)
    assert isinstance(found[1]["left"].products, np.memmap) and not isinstance(found[0]["left"].products, np.memmap)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"], "one file for layers that share an input"
    assert found[1]["down"].products is None
