"""The section of models.md about fewer visual tokens: what is answered, and how long prefill takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import earlier_starter, interval, table


def reduction(results: Path) -> str:
    """The whole section; empty before anything was measured."""
    file = results / "reduction.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    parts = {"accuracy": reduced_answers, "prefill": reduced_prefill}
    sections = [write(found[name]) for name, write in parts.items() if name in found]
    return "## Fewer visual tokens\n\n" + "\n\n".join(sections)


def reduced_answers(found: dict[str, Any]) -> str:
    """One row per method and share."""
    skills = list(found["questions"])
    rows = []
    for name, entry in found["settings"].items():
        overall, *rest = (entry["accuracy"][group] for group in ("overall", *skills))
        right = [f"{100 * cell['right']:.1f}" for cell in (overall, *rest)]
        points = interval(overall.get("points"), "{:+.1f}")
        rows.append([name, f"{entry['share']:.2f}", f"{entry['coverage']:.2f}", right[0], points, *right[1:]])
    head = ["`--image-reduction`", "tokens kept", "coverage", "right (%)", "points (95 % interval)"]
    note = (
        f"The starter's bundle ({found['engine']}, {found['bundle_sha256'][:12]}): "
        f"{sum(found['questions'].values())} questions about {found['pages']} held-out pages, exact answers; points "
        "are against all tokens, paired bootstrap over questions. Coverage: share of the variance of a picture's "
        "visual tokens that is left when each is replaced by the nearest one the decoder gets. `query` ranks tokens by "
        "the cosine of projected visual and text token embeddings, since the towers of these models come without their "
        f"text encoder. {found['date'][:10]}, commit {found['machine']['commit']}."
        f"{earlier_starter(bundle=found['bundle_sha256'])}"
    )
    quarter = {
        name: entry["accuracy"]["overall"]["right"]
        for name, entry in found["settings"].items()
        if name.endswith(":1/4")
    }
    best = max(quarter, key=quarter.__getitem__)
    blank = found["settings"]["blank"]
    conclusion = (
        f"For reading, leave out only blank tiles ({100 * (1 - blank['share']):.0f} % of the tokens, "
        f"{100 * blank['accuracy']['overall']['right']:.1f} % right); where a quarter of the tokens must do, `{best}` "
        f"keeps most ({100 * quarter[best]:.1f} %)."
    )
    return f"{conclusion}\n\n{table([*head, *(f'{skill} (%)' for skill in skills)], rows)}\n\n{note}"


def reduced_prefill(found: dict[str, Any]) -> str:
    """One row per method and share, the engines side by side."""
    engines = list(found["engines"])
    rows = []
    for name, first in found["engines"][engines[0]].items():
        cells = [name, f"{first['visual_tokens']:.0f}", f"{first['prompt_tokens']:.0f}"]
        for engine in engines:
            entry = found["engines"][engine][name]
            cells += [f"{1e3 * entry['prefill_s']:.0f}", f"{1e3 * entry['reduction_s']:.0f}"]
            cells.append(f"{entry['share_of_prefill']:.2f}")
        rows.append(cells)
    columns = ("prefill (ms)", "choosing (ms)", "share of all")
    head = ["`--image-reduction`", "visual tokens", "prompt tokens"]
    head += [f"{engine} {column}" for engine in engines for column in columns]
    note = (
        f"{found['bundle']}, random weights, {found['size']} picture, {found['threads']} threads, medians of "
        f"{found['rounds']} interleaved rounds on {found['machine']['processor']['model']}, {found['date'][:10]}, "
        f"commit {found['machine']['commit']}. The share counts choosing and prefill together."
    )
    shares = [
        entry["share_of_prefill"]
        for ways in found["engines"].values()
        for way, entry in ways.items()
        if way.endswith("1/4")
    ]
    conclusion = (
        f"Prefill falls nearly with the number of tokens: a quarter of them takes {min(shares):.2f} to "
        f"{max(shares):.2f} of the time."
    )
    return f"{conclusion}\n\n{table(head, rows)}\n\n{note}"
