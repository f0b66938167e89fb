"""The checkpoint's model as transformers loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import VerificationError
from edge_mllm_export.families.text_config import OF_A_MACHINE

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint


def load_model(checkpoint: Checkpoint, model_class: Any, dtype: Any) -> Any:
    """Load a checkpoint's weights into transformers' class, for answers.

    Args:
        checkpoint: Where they are.
        model_class: What has ``from_pretrained``.
        dtype: A torch dtype, its name, or "auto".

    Raises:
        VerificationError: transformers cannot load it.
    """
    # config.json may name kernels of the machine of the training; transformers' own attention is there everywhere.
    named = any(name in checkpoint.config for name in OF_A_MACHINE)
    attention = {"attn_implementation": "eager"} if named else {}
    try:
        return model_class.from_pretrained(checkpoint.path, dtype=dtype, **attention).eval()
    except Exception as error:  # whatever its code makes of the files
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        reason = f"transformers cannot load the model of '{checkpoint.path}' ({text})"
        raise VerificationError(f"{reason}; mend its files, or leave the comparison out with `verify=False`") from error
