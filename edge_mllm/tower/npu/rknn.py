"""Towers on Rockchip's NPUs. Only compiled ones: the compiler is for workstations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import BundleSpec, NpuTower
from edge_mllm.machine.npu import Npu, NpuError
from edge_mllm.machine.rknn import RknnLibrary
from edge_mllm.tower.npu.place import NpuPlace, find_context
from edge_mllm.tower.npu.process import NpuLoad

if TYPE_CHECKING:
    from edge_mllm.bundle.files import OpenBundle

BACKEND = Path(__file__).with_name("rknn_backend.py")


def compiled(bundle: OpenBundle, tower: NpuTower, npu: Npu, library: RknnLibrary) -> NpuPlace:
    """The bundle's compiled tower.

    Raises:
        NpuError: There is none for this chip, or it was compiled by another version than librknnrt.so is of.
        BundleError: Its file is damaged.
    """
    context = find_context(bundle, tower, npu)
    if context.sdk != library.runtime:
        raise NpuError(
            f"the tower for {context.architecture} was compiled by rknn-toolkit2 {context.sdk}, librknnrt.so here is "
            f"{library.runtime}; install the other librknnrt.so, or export the model again with rknn-toolkit2 "
            f"{library.runtime}"
        )
    request = ports(*shapes(bundle.spec, tower.tiles))
    return NpuPlace(
        load=NpuLoad(file=bundle.checked(context.binary), backend=BACKEND, request=request),
        tiles=tower.tiles,
        npu=npu,
        precision=tower.precision,
        compiled=True,
        sha256=context.binary.sha256.lower(),
        software=f"rknn {library.runtime}",
    )


def ports(pixels: Sequence[int], embeddings: Sequence[int]) -> dict[str, Any]:
    """Inputs and outputs of a tower, which the library does not tell, by their shapes."""
    return {
        "inputs": [["pixels", "tensor(float)", [*pixels]]],
        "outputs": [["embeddings", "tensor(float)", [*embeddings]]],
    }


def shapes(spec: BundleSpec, tiles: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of pixels and embeddings of so many tiles."""
    vision = spec.vision
    pixels = (tiles, 3, vision.tile_height, vision.tile_width)
    return pixels, (tiles, vision.tokens_per_tile, spec.decoder.row_width)
