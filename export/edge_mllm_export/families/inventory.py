"""Which tensors a checkpoint must hold: everything missing, left over or of another shape is named at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.errors import CheckpointError, TensorsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family, Shapes

_IGNORED = ("rotary_emb.inv_freq", ".position_ids")
"""Buffers that older releases of transformers stored although they are computed from the configuration."""


def check_tensors(checkpoint: Checkpoint, family: Family) -> None:
    """Compare the checkpoint's tensors with what tower and language model need.

    Raises:
        TensorsError: Something is missing, left over or has another shape.
    """
    with makes_a_model(checkpoint, "text_config"):
        needed = text_shapes(checkpoint, family)
    with makes_a_model(checkpoint, "vision_config"):
        needed |= family.tower_shapes(checkpoint)
    present = {
        name: tuple(info.shape)
        for name, info in checkpoint.tensors.items()
        if not name.endswith(_IGNORED) and not name.startswith(family.left_out)
    }
    optional = set() if not is_tied(checkpoint, family) else {_head_name(family)}
    missing = sorted(set(needed) - set(present) - optional)
    left_over = sorted(set(present) - set(needed))
    wrong = [
        f"{name} is {list(present[name])}, expected {list(needed[name])}"
        for name in sorted(set(needed) & set(present))
        if present[name] != needed[name]
    ]
    if missing or left_over or wrong:
        raise TensorsError(checkpoint.path, missing=missing, left_over=left_over, wrong=wrong)


@contextmanager
def makes_a_model(checkpoint: Checkpoint, section: str) -> Iterator[None]:
    """What follows makes a model of one section of config.json.

    Raises:
        CheckpointError: The model's own code fails on a value of it.
    """
    try:
        yield
    except EdgeMLLMError:
        raise
    except Exception as error:  # whatever a model's own code makes of a wrong value
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(checkpoint.path / "config.json", section, f"makes no model ({text})") from error


def text_shapes(checkpoint: Checkpoint, family: Family) -> Shapes:
    """Names in the checkpoint -> shapes of every tensor of the language model, its output head included."""
    return {
        text_source(name, family): shape for name, shape in _causal_lm_shapes(family.text_config(checkpoint)).items()
    }


def text_names(checkpoint: Checkpoint, family: Family) -> dict[str, str]:
    """Names in the plain causal LM -> names in the checkpoint."""
    return {name: text_source(name, family) for name in _causal_lm_shapes(family.text_config(checkpoint))}


def text_source(name: str, family: Family) -> str:
    """The checkpoint's name of a tensor of the plain causal LM."""
    for source, target in sorted(family.text_tensors.items(), key=lambda pair: -len(pair[1])):
        if name.startswith(target):
            return source + name.removeprefix(target)
    raise AssertionError(f"no prefix for {name} in family {family.name}")


def is_tied(checkpoint: Checkpoint, family: Family) -> bool:
    """Whether the configuration says that the output head is the embedding table."""
    return bool(family.text_config(checkpoint)["tie_word_embeddings"])


def _head_name(family: Family) -> str:
    return text_source("lm_head.weight", family)


def _causal_lm_shapes(config: Mapping[str, Any]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in empty_causal_lm(config).state_dict().items()}


def empty_causal_lm(config: Mapping[str, Any]) -> Any:
    """The model class of a causal LM configuration on the meta device: structure without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in config.items() if key != "model_type"}
    resolved = AutoConfig.for_model(config["model_type"], **fields)
    with torch.device("meta"):
        if type(resolved) in AutoModelForCausalLM._model_mapping:
            return AutoModelForCausalLM.from_config(resolved)
        from edge_mllm_export.families.headed_model import HeadedModel

        return HeadedModel(resolved)
