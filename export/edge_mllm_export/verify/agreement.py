"""How far two sets of numbers agree. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray

WideArray = npt.NDArray[np.float64]

CLOSE_CALL = 1e-3
"""Where the reference's two best logits are nearer than this, either is a right answer: float noise decides."""


@dataclass(frozen=True, kw_only=True)
class LogitAgreement:
    """Decoder against reference, over positions that both saw with the same tokens before them."""

    positions: int
    kl_mean: float
    """Mean over positions of the Kullback-Leibler divergence from the reference, nats."""
    kl_max: float
    top1: float
    """Share of positions with the same most likely token; close calls of the reference count as agreement."""
    close_calls: int
    """Positions where the reference's two best logits are nearer than :data:`CLOSE_CALL`."""
    max_abs_difference: float
    """Of any logit."""


def compare_logits(reference: FloatArray, ours: FloatArray) -> LogitAgreement:
    """Compare logits [positions, vocabulary]."""
    divergence = kl_divergence(reference, ours)
    same = reference.argmax(-1) == ours.argmax(-1)
    close = margins(reference) < CLOSE_CALL
    return LogitAgreement(
        positions=len(reference),
        kl_mean=float(divergence.mean()),
        kl_max=float(divergence.max()),
        top1=float((same | close).mean()),
        close_calls=int(close.sum()),
        max_abs_difference=float(np.abs(reference - ours).max()),
    )


def kl_divergence(reference: FloatArray, ours: FloatArray) -> WideArray:
    """KL(reference || ours) in nats, float64 [positions], from logits [positions, vocabulary]."""
    p, q = log_softmax(reference), log_softmax(ours)
    values: WideArray = np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0)
    return values


def log_softmax(logits: FloatArray) -> WideArray:
    """Log-probabilities over the last axis in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    values: WideArray = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return values


def margins(logits: FloatArray) -> FloatArray:
    """Best logit minus second best, [positions]."""
    two = np.partition(logits, -2, axis=-1)[..., -2:]
    gap: FloatArray = two[..., 1] - two[..., 0]
    return gap


@dataclass(frozen=True, kw_only=True)
class EmbeddingAgreement:
    """Visual embeddings against the reference's."""

    tiles: int
    """Tiles, or pictures where their tiles are stitched."""
    cosine_mean: float
    """Mean over visual tokens."""
    cosine_min: float
    """Worst visual token."""
    relative_error_mean: float
    """Norm of the difference over norm of the reference, mean over tiles."""
    relative_error_max: float
    per_tile: tuple[tuple[float, float], ...]
    """(mean cosine of its tokens, relative error) of every tile."""


def compare_embeddings(
    reference: Sequence[FloatArray] | FloatArray, ours: Sequence[FloatArray] | FloatArray
) -> EmbeddingAgreement:
    """Compare visual embeddings, tile by tile [tokens, n_embd]; tiles may differ in their number of tokens."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(reference, ours, strict=True)]
    cosine = [_cosine(a, b) for a, b in pairs]
    error = [float(np.sqrt(((a - b) ** 2).sum() / np.maximum((a**2).sum(), 1e-30))) for a, b in pairs]
    tokens = np.concatenate(cosine)
    return EmbeddingAgreement(
        tiles=len(pairs),
        cosine_mean=float(tokens.mean()),
        cosine_min=float(tokens.min()),
        relative_error_mean=float(np.mean(error)),
        relative_error_max=max(error),
        per_tile=tuple((float(c.mean()), e) for c, e in zip(cosine, error, strict=True)),
    )


def _cosine(a: WideArray, b: WideArray) -> WideArray:
    """Of every token, [tokens]."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    values: WideArray = (a * b).sum(-1) / np.maximum(norms, 1e-30)
    return values


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Greedy continuations next to the reference's."""

    tokens: int
    """Length of the reference's continuations, together."""
    same: int
    """Tokens until the first difference, together."""
    first_differences: tuple[int | None, ...]
    """Per prompt; None where the whole continuation is the same."""
    forced: int
    """Close calls of the reference where its token was taken although ours was another."""


def join_greedy(runs: Sequence[tuple[int, int | None, int]]) -> Greedy:
    """Sum up runs of (reference's length, first difference, forced tokens)."""
    return Greedy(
        tokens=sum(length for length, _, _ in runs),
        same=sum(length if first is None else first for length, first, _ in runs),
        first_differences=tuple(first for _, first, _ in runs),
        forced=sum(forced for _, _, forced in runs),
    )
