"""The same prompt for everybody: the model's own chat template around one picture and one text."""

from __future__ import annotations

import json
from pathlib import Path


def chat_prompt(directory: str, text: str, placeholder: str | None = None) -> str:
    """The rendered template.

    Args:
        directory: A checkpoint or a bundle; both have a chat template beside their configuration.
        text: The question.
        placeholder: What stands for the picture; None leaves what the template writes.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    root = Path(directory)
    content = [{"type": "image"}, {"type": "text", "text": text}]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_template(root))
    rendered = template.render(messages=[{"role": "user", "content": content}], add_generation_prompt=True)
    if placeholder is None:
        return rendered
    written = json.loads((root / "bundle.json").read_text("utf-8"))["prompt"]["placeholder"]
    if rendered.count(written) != 1:
        raise ValueError(f"the template writes {rendered.count(written)} times '{written}'")
    return rendered.replace(written, placeholder)


def _template(root: Path) -> str:
    for name in ("chat_template.jinja", "chat_template.json"):
        if (root / name).is_file():
            text = (root / name).read_text("utf-8")
            return text if name.endswith("jinja") else str(json.loads(text)["chat_template"])
    raise FileNotFoundError(f"{root} has no chat template")
