"""A model card for the hub, made from a bundle's own bundle.json and, where one is given, a benchmark's result file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_mllm.bundle.files import SPEC_FILE
from edge_mllm.hub.names import split_id
from edge_mllm.measure.bench.report import Sheet, caption, run_sheet, to_markdown
from edge_mllm.measure.bundle_report import recipe_lines, tokens_per_picture, verification_rows

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import BundleSpec
    from edge_mllm.measure.bench.result import Result

_LICENCE_ID = re.compile(r"[a-z][a-z0-9.-]*")
"""As the hub names licences; everything else is ``other`` there, with its name beside it."""


def model_card(spec: BundleSpec, repo: str, measured: Result | None = None) -> str:
    """README.md of a repository that holds a bundle.

    Args:
        spec: Of the bundle.
        repo: ``org/name``, for the commands.
        measured: What ``edge-mllm bench`` found for it.

    Returns:
        YAML between ``---`` that the hub reads, and Markdown.
    """
    return "\n".join([_head(spec), "", *_body(spec, repo), *_costs(measured), *_made(spec)]) + "\n"


def _head(spec: BundleSpec) -> str:
    """What the hub reads; values are JSON, which is YAML, so nothing of a bundle ends a line of it."""
    licence = spec.source.licence
    known = _LICENCE_ID.fullmatch(licence) is not None and licence != "unknown"
    fields: dict[str, object] = {"license": licence if known else "other"}
    if not known:
        fields["license_name"] = licence
    if split_id(spec.source.id) is not None:
        fields |= {"base_model": spec.source.id, "base_model_relation": "quantized"}
    fields |= {
        "library_name": "edge-mllm",
        "pipeline_tag": "image-text-to-text",
        "tags": ["edge-mllm", *({"onnx": "onnx", "gguf": "gguf"}[engine] for engine in spec.engines), "quantized"],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _body(spec: BundleSpec, repo: str) -> Iterator[str]:
    source = spec.source
    revision = f" at `{source.revision}`" if source.revision else ""
    yield f"# {_text(spec.name)}"
    yield ""
    yield f"`{_text(source.id)}`{revision}, exported for CPUs and phones with edge-mllm."
    if source.random_weights:
        yield ""
        yield "**Its weights are random: it measures speed, its answers mean nothing.**"
    yield from _run(spec, repo)
    yield from ("", "## Source", "")
    rows = [("licence", source.licence), ("family", source.family), ("SHA-256 of the checkpoint", source.sha256)]
    yield _table(("", ""), rows)
    yield from ("## Files", "")
    files = [(part.file, part.precision, f"{part.bytes / 1e6:.2f}") for part in spec.parts.values()]
    yield _table(("file", "precision", "MB"), files)
    yield from (f"- {_text(line.strip())}" for line in recipe_lines(spec))
    yield from ("", "## Against its checkpoint", "")
    if spec.verification:
        yield f"Compared with {_text(str(spec.verification['reference']))} when it was exported."
        yield ""
        yield _table(("part", "recipe", "agreement"), list(verification_rows(spec)))
    else:
        yield "Nobody compared it: it was exported without verification."
        yield ""
    yield from ("## Visual tokens", "")
    counts = tokens_per_picture(spec).items()
    yield _table(("picture", "tiles", "tokens"), [(size, str(n["tiles"]), str(n["tokens"])) for size, n in counts])


def _run(spec: BundleSpec, repo: str) -> Iterator[str]:
    yield from ("", "## Run it", "", "```sh")
    yield f'edge-mllm run -m {repo} -i photo.jpg "What is in the picture?"'
    yield from ("```", "", "```python", "import edge_mllm", "")
    yield f'with edge_mllm.load("{repo}") as model:'
    yield '    print(model.generate("What is in the picture?", "photo.jpg").text)'
    yield "```"
    if spec.engines == ("gguf",):
        yield from ("", "Its decoder needs the extra `[gguf]`.")


def _costs(measured: Result | None) -> Iterator[str]:
    if measured is None:
        return
    yield from ("## What it costs", "", f"Measured with `edge-mllm bench` on {_text(caption(measured))}.", "")
    yield to_markdown(run_sheet([measured]))


def _made(spec: BundleSpec) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in spec.exporter.items())
    yield f"Exported {spec.created} with {_text(versions)}; all of this is in `{SPEC_FILE}`."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return to_markdown(Sheet(tuple(header), tuple(tuple(_text(cell) for cell in row) for row in rows)))


def _text(value: str) -> str:
    """One line in which nothing of a bundle is markup of the page."""
    return re.sub(r"([<>\[\]`])", r"\\\1", " ".join(value.split()))
