"""``edge-mllm`` whose every token takes a millisecond more: a long answer takes seconds on the fastest machine too."""

from __future__ import annotations

import time

from edge_mllm.__main__ import main
from edge_mllm.decoders.ort.decoder import OrtDecoder

_step = OrtDecoder.step


def _slow_step(decoder, token):
    time.sleep(0.001)
    return _step(decoder, token)


if __name__ == "__main__":
    OrtDecoder.step = _slow_step
    main()
