"""MiniCPM-V's tower with its resampler as one module over the patches of one slice.

What does not depend on the slice is computed once: the queries with their norm and projection. Places in the table of
positions come from the patches' own rows and columns, see :func:`.model.table_places`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.siglip.modeling_siglip import ALL_ATTENTION_FUNCTIONS

from edge_mllm_export.families.minicpm_v.config import HEAD
from edge_mllm_export.families.minicpm_v.model import Resampler
from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.minicpm_v.config import MiniCPMVConfig

PREFIXES = {"vpm.": "vpm.", "resampler.": "resampler."}
LANES = 8
"""Numbers that torch.arange computes from one rounded start (ATen's vectors of float32 on processors)."""


class Parts(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Tower and resampler under their names in the checkpoint."""

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__()
        from transformers import AutoModel

        self.vpm = AutoModel.from_config(config.vision_config, attn_implementation="sdpa")
        self.resampler = Resampler(config)


class Projector(nn.Module):  # type: ignore[misc]
    """The resampler with its queries computed: [1, patches, width] and positions [patches, 2] -> [1, queries, n_embd].

    Args:
        source: With its weights.
        config: Of the tower: which operator attention is.
    """

    def __init__(self, source: Resampler, config: Any) -> None:
        super().__init__()
        self.config = config
        width, attention = source.query.shape[1], source.attn
        query, key, value = attention.in_proj_weight.chunk(3)
        query_bias, key_bias, value_bias = attention.in_proj_bias.chunk(3)
        with torch.no_grad():
            self.queries = nn.Parameter(nn.functional.linear(source.ln_q(source.query), query, query_bias)[None])
        self.kv_proj, self.ln_kv = source.kv_proj, source.ln_kv
        self.key, self.value = _linear(key, key_bias), _linear(value, value_bias)
        self.out_proj, self.ln_post = attention.out_proj, source.ln_post
        self.proj = _linear(source.proj.T.contiguous(), None)
        places = torch.arange(width // 4, dtype=torch.float32)
        self.register_buffer("frequencies", 1.0 / 10000 ** (places / (width / 4.0)), persistent=False)

    def forward(self, features: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Let the queries look at the patches."""
        values = self.ln_kv(self.kv_proj(features))
        angles = [positions[:, axis, None].float() * self.frequencies for axis in (1, 0)]
        keys = values + torch.cat([wave(part) for part in angles for wave in (torch.sin, torch.cos)], dim=-1)
        heads = [self._heads(rows) for rows in (self.queries, self.key(keys), self.value(values))]
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        answers, _ = attend(self, *heads, None, scaling=HEAD**-0.5, is_causal=False)
        return self.proj(self.ln_post(self.out_proj(answers.flatten(2))))

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        """[1, tokens, width] -> [1, heads, tokens, width of a head]."""
        return rows.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made


class Tower(nn.Module):  # type: ignore[misc]
    """pixels [patches, values] and their positions [patches, 2] -> visual embeddings [queries, n_embd], float32."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.vpm = parts.vpm
        self.projector = Projector(parts.resampler, parts.vpm.config)
        self.side = parts.vpm.config.image_size // parts.vpm.config.patch_size
        self.register_buffer("boundaries", torch.arange(1 / self.side, 1.0, 1 / self.side), persistent=False)

    def forward(self, pixels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Encode the patches of one slice."""
        embeddings, patch = self.vpm.embeddings, self.vpm.config.patch_size
        hidden = embeddings.patch_embedding(pixels.reshape(-1, 3, patch, patch)).flatten(1)
        places = self._bucket(positions[:, 0]) * self.side + self._bucket(positions[:, 1])
        hidden = (hidden + embeddings.position_embedding(places))[None]
        for layer in self.vpm.encoder.layers:
            hidden = layer(hidden, None)
        return self.projector(self.vpm.post_layernorm(hidden), positions)[0]

    def _bucket(self, places: torch.Tensor) -> torch.Tensor:
        """Buckets of rows or columns, int64 [patches].

        ``torch.arange`` multiplies in double precision, but rounds every eighth product to single precision and counts
        on from there. Where a fraction falls on the edge of a bucket, that decides: the same is done here.
        """
        count = (places.max() + 1).float()
        step = (1.0 / count).double()
        lane = places % LANES
        start = ((places - lane).double() * step).float().double()
        fractions = (start + lane.double() * step).float()
        return (fractions[:, None] >= self.boundaries).to(torch.int64).sum(-1)


def empty_parts(config: MiniCPMVConfig) -> Parts:
    """Structure without memory."""
    with torch.device("meta"):
        return Parts(config)


def tower_shapes(config: MiniCPMVConfig) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_parts(config), PREFIXES)


def stored_shapes(config: MiniCPMVConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of these tensors the tower's, and those that the projector is made of, with the constants of positions."""
    tower = {name: shape for name, shape in shapes.items() if name.startswith("vpm.")}
    width, queries = config.text_config.hidden_size, config.query_num
    kept = {name: shape for name, shape in shapes.items() if name.startswith(_KEPT)}
    side = config.vision_config.image_size // config.vision_config.patch_size
    return {
        **tower,
        **{name.replace("resampler.", "projector."): shape for name, shape in kept.items()},
        **{f"projector.{name}.weight": (width, width) for name in ("key", "value")},
        **{f"projector.{name}.bias": (width,) for name in ("key", "value")},
        "projector.queries": (1, queries, width),
        "projector.frequencies": (width // 4,),
        "boundaries": (len(torch.arange(1 / side, 1.0, 1 / side)),),
    }


_KEPT = tuple(f"resampler.{name}" for name in ("kv_proj", "ln_kv", "ln_post", "attn.out_proj", "proj"))


def load_tower(checkpoint: Checkpoint, config: MiniCPMVConfig) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    parts = empty_parts(config)
    fill_from_checkpoint(parts, checkpoint, PREFIXES)
    tower = Tower(parts)
    tower.eval()
    return tower
