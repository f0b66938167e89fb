"""``edge-mllm`` whose every token takes 4 ms more: a long answer takes seconds on the fastest machine too.

The steps that were made are counted in a file, where one is named.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from edge_mllm.__main__ import main
from edge_mllm.decoders.ort.decoder import OrtDecoder

STEPS = "EDGE_MLLM_TEST_STEPS"
_step, _counter, _told = OrtDecoder.step, itertools.count(1), os.environ.get(STEPS)


def _slow_step(decoder, token):
    time.sleep(0.004)
    if _told:
        Path(_told).write_text(str(next(_counter)))
    return _step(decoder, token)


if __name__ == "__main__":
    OrtDecoder.step = _slow_step
    main()
