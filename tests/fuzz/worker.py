"""Runs cases one by one and tells what came of each in lines of JSON. Arguments: sources, work folder, seed."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

_MOST_ADDRESSES = 24 << 30


def outcome_of(run: object, number: int) -> tuple[str, str]:
    """``answered``, ``refused`` or what must not be, with a text."""
    from edge_mllm.errors import EdgeMLLMError

    try:
        run(number)
    except EdgeMLLMError as error:
        text = str(error)
        one = "\n" not in text and "\r" not in text and len(text) < 2000
        return ("refused", text[:200]) if one else ("several lines", text[:400])
    except BaseException as error:
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        text = " ".join(str(error).split())[:200]
        return "foreign", f"{type(error).__name__}: {text} ({' '.join(where[-4:])})"
    return "answered", ""


def main() -> None:
    """Read numbers from standard input; a line for each goes to what standard output was when the process began."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native libraries may print
    warnings.simplefilter("ignore")
    logging.disable()
    from fuzz.cases import Cases

    cases = Cases(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    for line in sys.stdin:
        number, start = int(line), time.perf_counter()
        outcome, text = outcome_of(cases.run, number)
        gc.collect()
        found = {"number": number, "outcome": outcome, "text": text, "seconds": round(time.perf_counter() - start, 3)}
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
