"""transformers' processor with the tile tags that some checkpoints were trained with and that it cannot write."""

from __future__ import annotations

from typing import Any

TAG, GLOBAL_TAG = "<tile_{}>", "<tile_global_thumbnail>"


def tagged(kind: Any) -> Any:
    """A class of InternVL processors that writes NVLM-D's 1-D tile tags, as vLLM does it."""

    class TaggedProcessor(kind):  # type: ignore[misc]  # transformers is not typed here
        """The same with tile tags."""

        def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
            """One picture as text."""
            tiles = int(image_inputs["num_patches"][image_idx])
            tags = [*(TAG.format(number) for number in range(1, tiles)), GLOBAL_TAG]
            visual = self.image_token * self.image_seq_length
            return "<Image>" + "".join(tag + visual for tag in tags) + "</Image>"

    return TaggedProcessor
