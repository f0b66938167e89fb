"""Write the runtime's table of published layouts from the family files; ``--check`` fails when it is stale."""

from __future__ import annotations

import sys

from edge_mllm_export.families.runtime_layouts import document, place


def main() -> int:
    if "--check" in sys.argv[1:]:
        if place().read_text(encoding="utf-8") == document():
            return 0
        print(f"{place()} is stale; type: make layouts", file=sys.stderr)
        return 1
    place().write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
