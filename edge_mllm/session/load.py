"""Loads a model by its path or name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Unpack

from edge_mllm.arguments import require_known
from edge_mllm.hub.resolve import Wanted
from edge_mllm.session.files import find_model
from edge_mllm.session.open import open_components
from edge_mllm.session.opening import LoadOptions, opening_of
from edge_mllm.session.session import Model


def load(path: str | Path | None = None, **options: Unpack[LoadOptions]) -> Model:
    """Load a model.

    Args:
        path: A bundle, a directory of published ONNX files, a GGUF file, or a model's name: ``org/name`` or
            ``org/name@revision`` of the hub, or a short name of the catalogue, fetched where it is not here yet. None
            is the starter bundle that ships.
        options: See :class:`edge_mllm.LoadOptions`.

    Raises:
        ModelNotFoundError: There is no bundle at ``path``, or the name leads to a checkpoint to be exported first.
        HubError: The model cannot be had from the hub.
        BundleError: The bundle is damaged.
        EngineError: The bundle has no decoder for the engine, or the engine refuses it.
        ExtraMissingError: The engine is not installed.
        SettingError: An option is outside its range or of another type.
    """
    require_known(options, LoadOptions)
    wanted = Wanted(layout=options.get("layout"), precision=options.get("precision"), quant=options.get("quant"))
    place = find_model(path, wanted)
    start = time.perf_counter()
    opening = opening_of(place, options)
    parts = open_components(opening)
    spent, when_busy = time.perf_counter() - start, options.get("when_busy", "wait")
    return Model(parts, threads=opening.settings.threads, load_s=spent, when_busy=when_busy)
