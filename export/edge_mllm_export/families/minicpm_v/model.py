"""MiniCPM-V as a torch model under the names of its published tensors, which transformers does not have.

What the bundles are compared with: a SigLIP whose table of positions is spread over patch grids of any shape, and a
resampler in which learned queries look at the patches (Yao et al., arXiv 2408.01800, section 3). Written from the
publisher's modeling_navit_siglip.py and resampler.py (Apache-2.0), one slice at a time, so without their padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from edge_mllm_export.families.minicpm_v.config import HEAD, MiniCPMVConfig

EPSILON = 1e-6
"""Of the resampler's norms."""


class Resampler(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """[patches, width of the tower] -> [queries, width of the language model]."""

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__()
        width, inner = config.text_config.hidden_size, config.vision_config.hidden_size
        self.query = nn.Parameter(torch.zeros(config.query_num, width))
        self.kv_proj = nn.Identity() if inner == width else nn.Linear(inner, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // HEAD)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=EPSILON) for _ in range(3))
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Rows and columns of patches in ``grid``."""
        values = self.ln_kv(self.kv_proj(features))
        places = torch.from_numpy(key_positions(self.query.shape[1], grid)).to(values)
        answers, _ = self.attn(self.ln_q(self.query), values + places, values, need_weights=False)
        return self.ln_post(answers) @ self.proj


def key_positions(width: int, grid: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Sines and cosines of the columns, then those of the rows: float32 [patches, width], row by row."""
    frequencies = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float32) / (width / 4.0))
    rows, cols = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in grid), indexing="ij")
    parts = [np.outer(places.reshape(-1), frequencies) for places in (cols, rows)]
    return np.concatenate([wave(part) for part in parts for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


def table_places(grid: tuple[int, int], side: int) -> torch.Tensor:
    """Rows of the table of positions for the patches of a grid, int64 [patches], row by row.

    A grid's rows are spread over the table's: the first is the first, others fall into the bucket of their fraction.
    The last bits of those fractions decide where one falls on an edge, so they are made as the publisher's code does.
    """
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    rows, cols = (
        torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / torch.tensor(count, dtype=torch.int32)), boundaries, right=True)
        for count in grid
    )
    return (rows[:, None] * side + cols).flatten()


class MiniCPMVForCausalLM(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed here
    """Tower, resampler and language model: ``vpm``, ``resampler``, ``llm``."""

    config_class = MiniCPMVConfig

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        self.llm = AutoModelForCausalLM.from_config(config.text_config)
        self.vpm = AutoModel.from_config(config.vision_config)
        self.resampler = Resampler(config)
        self.image_token_id: int | None = None
        self.post_init()

    def get_decoder(self) -> Any:
        """The language model without its head."""
        return self.llm.model

    def get_input_embeddings(self) -> Any:
        """The language model's table."""
        return self.llm.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        """The language model's head."""
        return self.llm.lm_head

    def slice_embeddings(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """One slice, packed patches float32 [patches, 3 * patch * patch], to [queries, n_embd]."""
        embeddings, side = self.vpm.embeddings, self.vpm.config.patch_size
        hidden = embeddings.patch_embedding(patches.reshape(-1, 3, side, side)).flatten(1)
        places = table_places(grid, self.vpm.config.image_size // side)
        hidden = (hidden + embeddings.position_embedding(places))[None]
        for layer in self.vpm.encoder.layers:
            hidden = layer(hidden, None)
        return self.resampler(self.vpm.post_layernorm(hidden)[0], grid)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        tgt_sizes: torch.Tensor | None = None,
        image_bound: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: int64 [1, n].
            pixel_values: Packed patches of all slices, float32 [patches, values].
            tgt_sizes: Rows and columns of each slice's patches, int64 [slices, 2].
            image_bound: First and behind the last place of each slice in the ids, int64 [slices, 2].
            **options: Of the language model.
        """
        rows = self.get_input_embeddings()(input_ids)
        if pixel_values is not None and tgt_sizes is not None and image_bound is not None:
            rows, start = rows.clone(), 0
            for (height, width), (first, last) in zip(tgt_sizes.tolist(), image_bound.tolist(), strict=True):
                end = start + height * width
                rows[0, first:last] = self.slice_embeddings(pixel_values[start:end], (height, width))
                start = end
        return self.llm(inputs_embeds=rows, **options)
