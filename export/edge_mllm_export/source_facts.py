"""What a source will cost, from its configuration files alone: no weights are read, downloaded or made."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from edge_mllm.plan.facts import ModelFacts
from edge_mllm_export.checkpoint import Checkpoint, read_json
from edge_mllm_export.errors import SourceError
from edge_mllm_export.families import find_family
from edge_mllm_export.hub import is_hub_id
from edge_mllm_export.hub_configuration import fetch_configuration
from edge_mllm_export.inventory import empty_causal_lm, is_tied
from edge_mllm_export.model_shape import model_shape
from edge_mllm_export.part_bytes import decoder_sizes, tower_sizes
from edge_mllm_export.shapes import PREFIX, SHAPES


def facts_of_source(source: str) -> ModelFacts:
    """Sizes, shape and picture cutting of a checkpoint directory, a hub id or ``shape:NAME``.

    Raises:
        SourceError: It leads nowhere.
        CheckpointError: A field of its configuration cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="edge-mllm-plan-") as scratch:
        checkpoint = configuration(source, Path(scratch))
        family = find_family(checkpoint)
        text = family.text_config(checkpoint)
        model = empty_causal_lm(text)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        shape = model_shape(checkpoint, family)
        decoder = family.decoder(checkpoint)
        sizes = decoder_sizes(
            shapes,
            tied=is_tied(checkpoint, family),
            rotary_values=decoder.context_length * shape.decoder.head_dim,
        )
        return ModelFacts(
            name=checkpoint.id,
            context_length=decoder.context_length,
            image=family.image(checkpoint),
            vision=family.vision(checkpoint),
            decoders={"gguf": sizes["gguf"], "onnx": sizes["onnx"]},
            towers=tower_sizes(family.stored_tower_shapes(checkpoint)),
            shape=shape,
        )


def configuration(source: str, scratch: Path) -> Checkpoint:
    """The configuration files of a source as a checkpoint without tensors.

    Args:
        source: A checkpoint directory, a hub id or ``shape:NAME``.
        scratch: Existing directory for what has to be written.

    Raises:
        SourceError: It leads nowhere.
    """
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX)
        if name not in SHAPES:
            known = ", ".join(PREFIX + each for each in SHAPES)
            raise SourceError(source, f"no such shape; there are: {known}")
        plan = SHAPES[name]()
        return _bare(source, plan.config, plan.preprocessor, plan.processor, scratch)
    path = Path(source).expanduser()
    if not path.is_dir():
        if not is_hub_id(source):
            reason = f"no such directory, no hub id (org/name[@revision]) and no shape ({PREFIX}NAME)"
            raise SourceError(source, reason)
        path = fetch_configuration(source)
    if not (path / "config.json").is_file():
        raise SourceError(source, "it has no config.json, so it is no checkpoint")
    settings = _optional(path / "processor_config.json")
    nested = settings.pop("image_processor", None)
    processor = nested if isinstance(nested, dict) else _optional(path / "preprocessor_config.json")
    return _bare(source, read_json(path / "config.json"), processor, settings, path)


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _bare(
    id: str, config: dict[str, Any], processor: dict[str, Any], settings: dict[str, Any], path: Path
) -> Checkpoint:
    return Checkpoint(
        path=path,
        id=id,
        revision=None,
        licence="unknown",
        random_weights=False,
        config=json.loads(json.dumps(config)),
        processor=dict(processor),
        processor_settings=dict(settings),
        generation={},
        tokenizer_config={},
        tensors={},
    )
