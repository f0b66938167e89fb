"""The comparison for people."""

from __future__ import annotations

from typing import Any

_COLUMNS = {
    "first_token_s": ("picture to 1st token", 1, "{:.2f} s"),
    "vision_s": ("of it picture", 1, "{:.2f} s"),
    "second_first_token_s": ("2nd question", 1, "{:.3f} s"),
    "prefill_tps": ("prefill tok/s", 1, "{:.0f}"),
    "decode_tps": ("decode tok/s", 1, "{:.1f}"),
    "peak_resident_bytes": ("peak resident", 1e6, "{:.0f} MB"),
    "peak_anonymous_bytes": ("anonymous", 1e6, "{:.0f} MB"),
    "disk_bytes": ("on disk", 1e6, "{:.0f} MB"),
}


def ratios(medians: dict[str, float | None], base: dict[str, float | None]) -> dict[str, float]:
    """Each median over that of the base, where both are there."""
    found = {}
    for name, value in medians.items():
        other = base.get(name)
        if value is not None and other:
            found[name] = round(value / other, 4)
    return found


def print_table(result: dict[str, Any]) -> None:
    """Medians with their ratio to the first row, then what could not be done."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=190, highlight=False)
    title = (
        f"{result['model']}, {result['picture']}, {result['visual_tokens']} visual tokens, {result['threads']} threads"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("peer (ratio to the first row in brackets)")
    for label, _, _ in _COLUMNS.values():
        table.add_column(label, justify="right")
    for name, peer in result["peers"].items():
        table.add_row(name, *(_cell(peer, key) for key in _COLUMNS))
    console.print(table)
    for name, peer in result["peers"].items():
        if "differs" in peer:
            console.print(f"{name}: {peer['differs']}", markup=False)
    for name, reason in result["could_not"].items():
        console.print(f"not run: {name}: {reason}", markup=False)
    machine = result["machine"]
    console.print(f"{machine['processor']['model']}; {result['created']}; medians of {result['repeat']}", markup=False)


def _cell(peer: dict[str, Any], key: str) -> str:
    value = peer["medians"][key]
    if value is None:
        return "-"
    _, scale, form = _COLUMNS[key]
    ratio = peer.get("ratios", {}).get(key)
    return form.format(value / scale) + (f" ({ratio:.2f})" if ratio is not None else "")
