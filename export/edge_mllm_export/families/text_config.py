"""A language model's configuration on its own, as a plain Hugging Face causal LM."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.rotary import trained_length, within_trained_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_mllm.bundle.spec import DecoderSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

DEEPSTACK = "deepstack_layers"
"""Field of the plain language model's config.json: first layers that take rows of their own, where there are any."""
TIME_LAST = "mrope_time_last"
"""Field of the same: several tokens have one time in an order of their own, so that it cannot stand for their order."""
_FIELD = re.compile(r"field '(\w+)'")
OF_A_MACHINE = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
)
"""Fields that name the kernels of the machine a model was trained on, which may be missing here."""
_WRAPPER_FIELDS = ("_name_or_path", "architectures", "auto_map", "transformers_version", "quantization_config")


def causal_lm_config(text_config: Any, *, tied: bool) -> dict[str, Any]:
    """Reduce a resolved text configuration to what its own model class knows.

    Published wrappers carry dozens of fields of older code in ``text_config``; only the fields of the configuration
    class are kept, with their resolved values.

    Args:
        text_config: A transformers configuration object.
        tied: Whether the output head is the embedding table.

    Returns:
        The content of config.json, with ``model_type`` and ``architectures``.

    Raises:
        CheckpointError: Its rotary positions are of a kind that is not known.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    model_type = text_config.model_type
    known = AutoConfig.for_model(model_type).to_dict()
    fields = {key: value for key, value in text_config.to_dict().items() if key in known}
    for name in _WRAPPER_FIELDS:
        fields.pop(name, None)
    fields["model_type"] = model_type
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)  # some text models exist inside a wrapper only
    fields["architectures"] = [causal or MODEL_MAPPING_NAMES[model_type]]
    fields["tie_word_embeddings"] = tied
    return within_trained_length(fields)


def normalised_text_config(text_config: Any) -> Any:
    """The language model's configuration under optimum's common names (num_layers, hidden_size, vocab_size, ...)."""
    from optimum.utils.normalized_config import NormalizedConfigManager, NormalizedTextConfigWithGQA

    try:
        normalised = NormalizedConfigManager.get_normalized_config_class(text_config.model_type)
    except KeyError:  # newer than optimum's table; most language models use the common names
        normalised = NormalizedTextConfigWithGQA
    return normalised(text_config)


def plain_decoder_spec(text_config: Any) -> DecoderSpec:
    """Dimensions of a language model with sequential positions and causal attention.

    Args:
        text_config: A transformers configuration object.
    """
    from edge_mllm.bundle.spec import DecoderSpec

    normalised = normalised_text_config(text_config)
    return DecoderSpec(
        n_embd=normalised.hidden_size,
        n_vocab=normalised.vocab_size,
        n_layer=normalised.num_layers,
        context_length=trained_length(text_config.to_dict()),
        head_dim=getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads,
    )


def resolved_config(checkpoint: Checkpoint, kind: Any = None) -> Any:
    """The checkpoint's config.json as transformers' configuration object: defaults filled in, parts nested.

    Args:
        checkpoint: The opened checkpoint.
        kind: A configuration class that transformers does not have; None looks it up by ``model_type``.

    Raises:
        CheckpointError: A value has the wrong type, or is one that no model can have.
    """
    config = _without(checkpoint.config, OF_A_MACHINE)
    if kind is not None and config["model_type"] != kind.model_type:
        reason = f"is {config['model_type']!r}, expected '{kind.model_type}'"
        raise CheckpointError(checkpoint.path / "config.json", "model_type", reason)
    try:
        return _made(kind, config)
    except Exception as error:  # transformers raises classes of several libraries for a wrong value
        blamed = _blame(config, error)
        if not blamed[0]:
            blamed = _culprit(config, lambda fields: _made(kind, fields)), blamed[1]
        raise CheckpointError(checkpoint.path / "config.json", *blamed) from error


def text_config(checkpoint: Checkpoint, config: Callable[[Checkpoint], Any] = resolved_config) -> dict[str, Any]:
    """The language model as a plain causal LM; the checkpoint's top level decides whether embeddings are tied.

    Args:
        checkpoint: The opened checkpoint.
        config: Reads its configuration.
    """
    whole = config(checkpoint)
    return causal_lm_config(whole.text_config, tied=bool(whole.tie_word_embeddings))


def decoder_spec(checkpoint: Checkpoint, config: Callable[[Checkpoint], Any] = resolved_config) -> DecoderSpec:
    """Dimensions of a language model with sequential positions and causal attention; see :func:`text_config`."""
    return plain_decoder_spec(config(checkpoint).text_config)


def _made(kind: Any, config: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    fields = {key: value for key, value in config.items() if key != "model_type"}
    return kind(**fields) if kind is not None else AutoConfig.for_model(config["model_type"], **fields)


def _culprit(config: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> str:
    """The one field without which a configuration can be made; "" where there is none."""
    for path in sorted(dict(_leaves(config)), key=lambda path: path.count(".")):
        with suppress(Exception):  # as for the whole
            make(_lacking(config, path.split(".")))
            return path
    return ""


def _lacking(config: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """A configuration without one field."""
    first, *rest = path
    if not rest:
        return {name: value for name, value in config.items() if name != first}
    return config | {first: _lacking(config[first], rest)}


def _without(config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A configuration without some fields, in its sections neither."""
    return {
        name: _without(value, names) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in names
    }


def _blame(config: dict[str, Any], error: Exception) -> tuple[str, str]:
    """The field that an error of transformers is about, and the reason: its messages name the last part only."""
    text = " ".join(str(error).split())
    named = _FIELD.search(text)
    places = [path for path, value in _leaves(config) if named and path.split(".")[-1] == named[1]]
    shown = [path for path, value in _leaves(config) if path in places and f"(value: {value!r})" in text]
    if named:
        return (shown or places or [named[1]])[0], text.split(": ", 2)[-1][:200]
    kinds = [path for path, value in _leaves(config) if path.endswith("model_type") and not _known(value)]
    if kinds:
        return kinds[0], "is no kind of model that transformers knows"
    return "", f"is no configuration that transformers can read ({text[:200]})"


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _known(model_type: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return isinstance(model_type, str) and model_type in CONFIG_MAPPING_NAMES
