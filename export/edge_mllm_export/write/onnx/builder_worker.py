"""The child process around onnxruntime-genai's model builder: takes its arguments, exits as it does.

Run by path, so it imports nothing of this package. transformers loads weights by name and leaves those that it does not
find at random. A plain language model's names have no ``language_model`` in them; for the classes that are put around
one and do not know names without it, they are told here.
"""

from __future__ import annotations

import runpy

_WRAPPERS = ("Qwen3VLForConditionalGeneration", "Qwen3_5ForConditionalGeneration")


def main() -> None:
    """Tell transformers the names, then run the builder."""
    from transformers.conversion_mapping import WeightRenaming, register_checkpoint_conversion_mapping

    for name in _WRAPPERS:
        plain = WeightRenaming(r"^model\.(?!language_model\.|visual\.)", "model.language_model.")
        register_checkpoint_conversion_mapping(name, [plain], overwrite=True)
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")


if __name__ == "__main__":
    main()
