"""Random requests with limits on memory, in a process of their own: ``python memory_requests.py FOLDER SEED COUNT``.

Prints a JSON list of [file, engine, limit, peak, outcome], bytes while one request is answered or refused.
"""

import json
import random
import sys
from pathlib import Path

import edge_mllm
from edge_mllm.answer.limits import LimitError
from edge_mllm.machine.memory import peak_rss_bytes, resident_bytes, trim_heap


def forget_peak() -> None:
    """Have the system count this process's peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng, found = random.Random(seed), []
    files = sorted(folder.iterdir())
    models = {engine: edge_mllm.load(engine=engine, threads=1, cache_bytes=0) for engine in ("onnx", "gguf")}
    for model in models.values():
        model.generate("Hello", max_new_tokens=1)
    for _ in range(count):
        file, engine = rng.choice(files), rng.choice(("onnx", "gguf"))
        trim_heap()
        limit = int((resident_bytes() or 0) + rng.uniform(1, 250) * 1e6)
        forget_peak()
        try:
            models[engine].generate("What is this?", [file], max_new_tokens=2, max_memory=limit)
            outcome = "answered"
        except LimitError:
            outcome = "refused"
        found.append([file.name, engine, limit, peak_rss_bytes(), outcome])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
