"""The checkpoint's configuration: SmolVLM's architecture (Idefics3) at a size that a phone does not notice."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, LlamaConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

from . import charmap
from .pages import LONGEST, TILE

PATCH = 8
SCALE = 2
TOKENS = (TILE // PATCH // SCALE) ** 2
HIDDEN = 256
VOCABULARY = 384


def make_config(ids: dict[str, int]) -> Idefics3Config:
    """Return the configuration; `ids` names the special tokens: bos, eos, pad, image."""
    vision = Idefics3VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_channels=3,
        image_size=TILE,
        patch_size=PATCH,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
    )
    return Idefics3Config(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        scale_factor=SCALE,
        image_token_id=ids["image"],
        tie_word_embeddings=True,
        pad_token_id=ids["pad"],
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
    )


def make_model(config: Idefics3Config, seed: int = 0) -> Idefics3ForConditionalGeneration:
    """Build the model with fresh weights; residual branches start small, so that it learns at once."""
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5 * (0.4 if is_branch_end(name) else 1.0))
    nn.init.normal_(model.model.connector.modality_projection.proj.weight, std=0.1 / 32)
    look_around(model.model.vision_model)
    nn.init.normal_(model.model.text_model.embed_tokens.weight, std=0.05)
    return model


OFFSETS = (
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((-1, -1), (1, 1), (-1, 1), (1, -1)),
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((0, -2), (0, 2), (0, -1), (0, 1)),
)


@torch.no_grad()
def look_around(tower: nn.Module) -> None:
    """Start the tower as something like a convolution: every head looks at one neighbour of its patch.

    Positions are sines and cosines in the first 64 dimensions, queries are keys turned by the neighbour's offset, and
    the patch filters sum to zero. From random positions the tower needs tens of thousands of tiles to find out who is
    next to whom.
    """
    side, half = TILE // PATCH, 16
    waves = (torch.arange(half) + 0.5) * (torch.pi / half)
    place = torch.arange(side)[:, None] * waves
    axis = torch.cat([place.cos(), place.sin()], dim=1)
    position = tower.embeddings.position_embedding.weight
    position.zero_()
    grid = position.view(side, side, -1)
    grid[:, :, : 2 * half] = axis[:, None]
    grid[:, :, 2 * half : 4 * half] = axis[None, :]
    filters = tower.embeddings.patch_embedding.weight
    shade = torch.randn(HIDDEN, 1, PATCH, PATCH) * 0.06 + torch.zeros(1, 3, 1, 1)
    filters.copy_(shade - shade.mean(dim=(1, 2, 3), keepdim=True) + torch.randn_like(filters) * 0.01)
    filters[: 4 * half] *= 0.05
    for depth, (layer, offsets) in enumerate(zip(tower.encoder.layers, OFFSETS, strict=True)):
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        query.normal_(std=0.005)
        key.normal_(std=0.005)
        for head, offset in enumerate(offsets):
            rows = slice(head * 4 * half, (head + 1) * 4 * half)
            key[rows, : 4 * half] += torch.eye(4 * half)
            for at, shift in enumerate(offset):
                cos, sin = torch.diag((shift * waves).cos()), torch.diag((shift * waves).sin())
                turn = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
                block = slice(head * 4 * half + at * 2 * half, head * 4 * half + (at + 1) * 2 * half)
                query[block, at * 2 * half : (at + 1) * 2 * half] += (1.4 + 0.4 * depth) * turn


def is_branch_end(name: str) -> bool:
    """Tell whether a weight writes into the residual stream."""
    return any(part in name for part in ("out_proj", "o_proj", "fc2", "down_proj"))


def make_image_processor() -> Idefics3ImageProcessorPil:
    """Return the image processor: pages of 192 pixels cut into 96-pixel tiles, plus a thumbnail."""
    return Idefics3ImageProcessorPil(
        size={"longest_edge": LONGEST},
        max_image_size={"longest_edge": TILE},
        do_image_splitting=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_convert_rgb=True,
        do_pad=True,
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        rescale_factor=1 / 255,
    )


def tower_features(model: Idefics3ForConditionalGeneration, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run tower and projector on whole tiles [n, 3, 96, 96]; return patch features [n, 144, d] and tokens [n, 16, d].

    The same arithmetic as the model's own forward, without its handling of padding.
    """
    vision = model.model.vision_model
    hidden = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    hidden = hidden + vision.embeddings.position_embedding.weight
    for layer in vision.encoder.layers:
        hidden = layer(hidden, None)
    hidden = vision.post_layernorm(hidden)
    return hidden, model.model.connector(hidden)


def _plain_attention(module, query, key, value, mask, scaling=None, dropout=0.0, **_):  # noqa: ARG001  (the signature is transformers')
    """Attention as two matrix products: on CPU its backward pass is several times faster than the fused one."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    weights = (query * scaling) @ key.transpose(-1, -2)
    weights = torch.softmax(weights if mask is None else weights + mask, dim=-1)
    module.looked = weights
    return (weights @ value).transpose(1, 2).contiguous(), None


def fast_attention(model: Idefics3ForConditionalGeneration) -> None:
    """Let tower and language model train with plain attention."""
    ALL_ATTENTION_FUNCTIONS.register("plain", _plain_attention)
    model.model.vision_model.config._attn_implementation = "plain"
    model.model.text_model.config._attn_implementation = "plain"


LOOKING = {1: ((2,), "asks"), 2: ((0, 2), "spots"), 3: ((1,), "late")}
COUNTING = 1
COUNTED = charmap.MOST + charmap.ROWS + 2 * charmap.PLACES


def text_loss(
    model: Idefics3ForConditionalGeneration,
    batch: dict[str, torch.Tensor],
    visual: torch.Tensor,
    counter: nn.Linear,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the answers' loss, the loss of keeping one's place, and which answer tokens are right.

    `visual` holds the embeddings of all tiles. A token weighs less in a long answer. Keeping one's place is taught with
    what the renderer knows: the heads `LOOKING` (of each layer) of the token before a character shall look at the
    visual token that shows the character, those of a name in a question at the name in the picture, and after layer
    `COUNTING` a visual token shall tell, through a throw-away head, which character of its line it shows first, in
    which row, and where on the page. Without this the model doubles and drops letters for tens of thousands of pages.
    """
    text = model.model.text_model
    hidden = text.embed_tokens(batch["ids"])
    hidden = hidden.masked_scatter((batch["ids"] == model.config.image_token_id)[..., None], visual.to(hidden.dtype))
    mask = torch.zeros(batch["seen"].shape, dtype=hidden.dtype).masked_fill_(~batch["seen"], -1e4)
    turns = text.rotary_emb(hidden, batch["positions"])
    losses = []
    for depth, layer in enumerate(text.layers):
        hidden = layer(hidden, attention_mask=mask, position_embeddings=turns, use_cache=False)
        if depth in LOOKING:
            heads, column = LOOKING[depth]
            losses.append(_looking_loss(layer.self_attn.looked[:, list(heads)], batch[column]))
        if depth == COUNTING:
            at_picture = hidden[batch["ids"] == model.config.image_token_id]
            losses.append(_counting_loss(counter(at_picture).float(), batch))
    wanted = batch["labels"][:, 1:]
    asked = wanted != -100
    logits = model.lm_head(text.norm(hidden[:, :-1][asked])).float()
    place = torch.stack(losses).mean()
    each = nn.functional.cross_entropy(logits, wanted[asked], reduction="none")
    answer = answers_of(batch["labels"])
    worth = answer.bincount()[answer].float() ** -0.5
    return (each * worth).sum() / worth.sum(), place, logits.argmax(-1) == wanted[asked]


def answers_of(labels: torch.Tensor) -> torch.Tensor:
    """Return, for every asked token of a batch in order, the number of the answer that it belongs to."""
    asked = labels[:, 1:] != -100
    starts = asked & ~nn.functional.pad(asked[:, :-1], (1, 0))
    return starts.flatten().long().cumsum(0).view_as(asked)[asked] - 1


def _looking_loss(weights: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """Return minus the log of the attention [b, heads, n, n] that a label's spot gets from the token before it."""
    row, column = (spots[:, 1:] >= 0).nonzero(as_tuple=True)
    if not len(row):
        return weights.new_zeros((), dtype=torch.float32)
    return -weights[row, :, column, spots[row, column + 1]].float().clamp_min(1e-5).log().mean()


def _counting_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy of ordinals, rows and places; the many visual tokens that show nothing weigh a fifth."""
    parts = logits.split([charmap.MOST, charmap.ROWS, charmap.PLACES, charmap.PLACES], dim=-1)
    ordinals, rows, across = batch["ordinals"], batch["rows"], batch["across"]
    each = nn.functional.cross_entropy(parts[0], ordinals, reduction="none")
    total = each[ordinals > 0].mean() + 0.2 * each[ordinals == 0].mean()
    lined = (rows > 0) & (rows != charmap.UNASKED)
    shown = (ordinals > 0) & (across[:, 0] != charmap.UNASKED)
    if lined.any():
        total = total + 0.5 * nn.functional.cross_entropy(parts[1][lined], rows[lined])
    if shown.any():
        for part, wanted in zip(parts[2:], across[shown].unbind(1), strict=True):
            total = total + 0.25 * nn.functional.cross_entropy(part[shown], wanted)
    return total
