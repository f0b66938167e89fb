"""Write the runtime's catalogue from families and shapes; ``--check`` fails when it is stale."""

from __future__ import annotations

import sys

from edge_mllm_export.shapes.catalogue import KNOWN, document, place
from edge_mllm_export.source.facts import facts_of_source


def main() -> int:
    text = document({name: facts_of_source(f"shape:{name}") for name in KNOWN})
    if "--check" in sys.argv[1:]:
        if place().read_text(encoding="utf-8") == text:
            return 0
        print(f"{place()} is stale; type: make catalogue", file=sys.stderr)
        return 1
    place().write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
