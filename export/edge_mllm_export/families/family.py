"""A model family as a value: everything the pipeline needs to know about a kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_mllm.errors import PromptError
from edge_mllm.prompt.item_template import content_kind, with_items
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.processor_fields import decided_counts
from edge_mllm_export.families.text_config import resolved_config

if TYPE_CHECKING:
    import torch

    from edge_mllm.bundle.spec import DecoderSpec, ImageSpec, PromptSpec, VisionSpec
    from edge_mllm.prompt.item_template import Content
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

Shapes = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
TensorNames = Mapping[str, str | tuple[str, ...]]
"""Name of a tensor -> its name, or the names of its equal parts, in another file."""


@dataclass(frozen=True, kw_only=True)
class MmprojSpec:
    """How the tower is called inside an ``mmproj.gguf`` for llama.cpp's libmtmd."""

    projector_type: str
    """The value of ``clip.projector_type`` (gguf's VisionProjectorType)."""
    keys: Callable[[Checkpoint], dict[str, Any]]
    """Further ``clip.*`` metadata read from the checkpoint's configuration."""
    tensors: TensorNames | Callable[[Checkpoint], TensorNames]
    """Checkpoint tensor name -> GGUF tensor name; ``{i}`` stands for a layer number. A function where the names depend
    on the checkpoint's configuration.

    Several names: the tensor is cut into as many equal parts, along its first axis, or along time where it is the
    kernel of a convolution over time too.
    """
    added: Mapping[str, float] = field(default_factory=dict)
    """Checkpoint tensor name -> number added to its values: norms that are stored as a difference from it."""
    halved: tuple[str, ...] = ()
    """Checkpoint tensors that libmtmd takes in F16 alone, whatever the precision asked for."""

    def names(self, checkpoint: Checkpoint) -> TensorNames:
        """:attr:`tensors` of a checkpoint."""
        return self.tensors(checkpoint) if callable(self.tensors) else self.tensors


def transformer_keys(config: Any, image: ImageSpec, *, side: int, patch: int) -> dict[str, Any]:
    """What :attr:`MmprojSpec.keys` have for every vision transformer of one tile size; floats are float, sizes int.

    Args:
        config: Of the checkpoint.
        image: For means and deviations.
        side: Of a tile, in pixels.
        patch: Side of a patch.
    """
    vision = config.vision_config
    return {
        "clip.vision.projection_dim": config.text_config.hidden_size,
        "clip.vision.image_size": side,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.vision.block_count": vision.num_hidden_layers,
        "clip.vision.attention.head_count": vision.num_attention_heads,
        "clip.vision.attention.layer_norm_epsilon": float(vision.layer_norm_eps),
        "clip.vision.image_mean": image.mean,
        "clip.vision.image_std": image.std,
    }


_SIGLIP_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def siglip_tensors(tower: str) -> dict[str, str]:
    """Names of a SigLIP's tensors for :attr:`MmprojSpec.tensors`; ``tower`` is their prefix in the checkpoint."""
    whole = {
        "embeddings.patch_embedding.weight": "patch_embd.weight",
        "embeddings.patch_embedding.bias": "patch_embd.bias",
        "embeddings.position_embedding.weight": "position_embd.weight",
        "post_layernorm.weight": "post_ln.weight",
        "post_layernorm.bias": "post_ln.bias",
    }
    layers = {
        f"encoder.layers.{{i}}.{source}.{kind}": f"blk.{{i}}.{target}.{kind}"
        for kind in ("weight", "bias")
        for source, target in _SIGLIP_LAYER.items()
    }
    return {tower + source: f"v.{target}" for source, target in (whole | layers).items()}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family. Functions read the checkpoint's own configuration files; torch is imported inside them only."""

    name: str
    architectures: tuple[str, ...]
    """Class names in config.json's ``architectures`` that this family reads."""
    image: Callable[[Checkpoint], ImageSpec]
    vision: Callable[[Checkpoint], VisionSpec]
    prompt: Callable[[Checkpoint], PromptSpec]
    decoder: Callable[[Checkpoint], DecoderSpec]
    config: Callable[[Checkpoint], Any] = resolved_config
    """The checkpoint's configuration as transformers' object, or as one of our own class."""
    text_config: Callable[[Checkpoint], dict[str, Any]]
    """The language model's configuration as a plain causal-LM config.json (with model_type, architectures)."""
    text_tensors: Mapping[str, str] = field(
        default_factory=lambda: {"model.language_model.": "model.", "lm_head.": "lm_head."}
    )
    """Prefixes of the checkpoint's text tensors -> prefixes in the plain causal LM, longest first."""
    left_out: tuple[str, ...] = ()
    """Prefixes of tensors in the checkpoint that no answer needs."""
    tower_shapes: Callable[[Checkpoint], Shapes]
    """Checkpoint names -> shapes of every tensor of tower and projector."""
    stored_tower: Callable[[Checkpoint, Shapes], Shapes] | None = None
    """From those the constants that the tower's graph stores, where some are not used or others are added."""
    build_tower: Callable[[Checkpoint], torch.nn.Module]
    """Tower with projector, float32, eval: pixels [tiles, 3, height, width] -> embeddings [tiles, tokens, n_embd]."""
    reference_processor: Callable[[Checkpoint], Any] | None = None
    """What pixels and token ids are compared with where transformers has no such model, written from the publisher's
    code; None: the directory's own processor."""
    adapt_processor: Callable[[Checkpoint, Any], Any] | None = None
    """From the class of the directory's processor one that makes the choices which transformers' cannot."""
    counts: Callable[[Checkpoint], dict[str, Any]] | None = None
    """Settings of transformers' processor that only repeat sizes of the model."""
    processor_options: Callable[[Checkpoint], dict[str, Any]] | None = None
    """What a user passes to transformers' processor with every call for the choices made."""
    picture: str | None = None
    """What a user writes for a picture where a chat template takes texts; None: the prompt's placeholder."""
    template_variables: Mapping[str, bool] = field(default_factory=dict)
    """Variables of chat templates as the publisher's own code sets them when a user does not say."""
    model_class: Callable[[], Any] | None = None
    """The model as a transformers class, where transformers itself has none."""
    newline: str | None = None
    """The checkpoint's name of the embedding that ends rows of stitched tiles, see :mod:`edge_mllm.tower.stitching`."""
    mmproj: MmprojSpec | None = None
    tile_tags: bool = False
    """Whether tiles can be announced by text tags; then ``tile_tags`` in ``processor_settings`` asks for them."""
    pan_and_scan: bool = False
    """Whether the processor cuts crops on demand; then ``pan_and_scan`` in ``processor_settings`` asks for them."""
    checkpoints: tuple[str, ...] = ()
    """Published checkpoints known to have this layout (hub ids), for models.md."""
    licence: str = ""
    """Licence of those checkpoints as their cards say it, for models.md."""
    published: dict[str, Any] | None = None
    """How directories of ONNX files that others published are read without an export, or why they cannot be; None where
    none are known. See :mod:`edge_mllm_export.families.published_layout`."""

    def decided(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Where the checkpoint's files contradict each other: what they say, and which of it is used."""
        return () if self.counts is None else decided_counts(checkpoint, self.counts(checkpoint))

    def content_kind(self, checkpoint: Checkpoint) -> Content:
        """What the checkpoint's chat template takes.

        Raises:
            CheckpointError: There is none, or it has no way to show a question about a picture.
        """
        prompt, template = self.prompt(checkpoint), checkpoint.template
        picture = self.picture or prompt.placeholder
        try:
            return content_kind(template.text, prompt.special_tokens, prompt.placeholder, picture)
        except PromptError as error:
            raise CheckpointError(checkpoint.path / template.file, "chat_template", str(error)) from error

    def chat_template(self, checkpoint: Checkpoint) -> str:
        """The checkpoint's chat template in a form that takes lists of texts and pictures.

        Raises:
            CheckpointError: As for :meth:`content_kind`.
        """
        template = checkpoint.chat_template
        for name, value in self.template_variables.items():
            if name in template:
                template = f"{{% set {name} = {str(value).lower()} %}}{template}"
        if self.content_kind(checkpoint) == "items":
            return template
        return with_items(template, self.picture or self.prompt(checkpoint).placeholder)

    def stored_tower_shapes(self, checkpoint: Checkpoint) -> Shapes:
        """Shapes of the constants that the tower's graph stores, by the checkpoint's names."""
        shapes = self.tower_shapes(checkpoint)
        return shapes if self.stored_tower is None else self.stored_tower(checkpoint, shapes)
