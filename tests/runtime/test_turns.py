"""Several threads, forks and closed models: every answer is right, or one clear error."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import edge_mllm
from edge_mllm.errors import BusyError, ClosedError

DEMO = Path(__file__).resolve().parents[2] / "starter" / "demo"
PICTURES = {name: DEMO / f"{name}.png" for name in ("label", "sign")}
QUESTION = "What does it say?"
ENGINES = ("onnx", "gguf")


@pytest.fixture(params=ENGINES)
def starter(request):
    with edge_mllm.load(engine=request.param, threads=2) as model:
        yield model


@pytest.fixture
def expected(starter):
    return {name: starter.generate(QUESTION, [path]).text for name, path in PICTURES.items()}


def test_two_threads_get_their_own_answers(starter, expected):
    assert expected["label"] != expected["sign"]
    wrong = []

    def ask(name):
        for _ in range(50):
            text = starter.generate(QUESTION, [PICTURES[name]]).text
            if text != expected[name]:
                wrong.append((name, text))

    threads = [threading.Thread(target=ask, args=(name,)) for name in PICTURES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_asyncio_threads_get_their_own_answers(starter, expected):
    async def ask_all():
        names = [*PICTURES] * 10
        answers = [asyncio.to_thread(starter.generate, QUESTION, [PICTURES[name]]) for name in names]
        return names, await asyncio.gather(*answers)

    names, answers = asyncio.run(ask_all())
    assert [answer.text for answer in answers] == [expected[name] for name in names]


def test_two_threads_share_a_chat(starter):
    chat = starter.chat()
    threads = [threading.Thread(target=chat.ask, args=(QUESTION, [path])) for path in PICTURES.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_a_chat_stream_that_was_overtaken_says_so(starter):
    chat = starter.chat()
    late = chat.stream(QUESTION, [PICTURES["label"]])
    chat.ask(QUESTION, [PICTURES["sign"]])
    with pytest.raises(BusyError):
        next(late)
    assert len(chat.messages) == 2


def test_a_thread_with_an_open_stream_is_refused_and_a_dropped_stream_frees(starter, expected):
    stream = starter.stream(QUESTION, [PICTURES["label"]])
    next(stream)
    for call in (starter.generate, starter.stream, starter.plan, starter.chat().ask):
        with pytest.raises(BusyError, match="stream"):
            call(QUESTION, [PICTURES["sign"]])
    del stream
    gc.collect()
    assert starter.generate(QUESTION, [PICTURES["sign"]]).text == expected["sign"]


def test_a_stream_may_end_in_another_thread(starter, expected):
    stream = starter.stream(QUESTION, [PICTURES["label"]])
    next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join()
    assert starter.generate(QUESTION, [PICTURES["sign"]]).text == expected["sign"]


def test_when_busy_raise():
    with edge_mllm.load(when_busy="raise") as model:
        stream = model.stream(QUESTION, [PICTURES["label"]])
        next(stream)
        seen = []

        def ask():
            try:
                model.generate(QUESTION)
            except BusyError as error:
                seen.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        assert len(seen) == 1 and "ask again later" in seen[0]
        assert list(stream)
    with pytest.raises(edge_mllm.EdgeMLLMError, match="when_busy"):
        edge_mllm.load(when_busy="perhaps")


def test_closed_twice_and_used_after(starter):
    chat = starter.chat()
    starter.close()
    starter.close()
    for call in (starter.generate, starter.stream, starter.plan, chat.ask, chat.stream):
        with pytest.raises(ClosedError):
            call("Hi")
    with pytest.raises(ClosedError):
        starter.encode(PICTURES["label"])


def test_a_model_that_is_closed_under_an_open_stream_ends_it(starter):
    stream = starter.stream(QUESTION, [PICTURES["label"]])
    next(stream)
    starter.close()
    with pytest.raises(edge_mllm.EdgeMLLMError):
        list(stream)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_process_is_told(engine):
    code = f"""
import os, sys
import edge_mllm
model = edge_mllm.load(engine={engine!r}, threads=2)
model.generate("Hi", [{str(PICTURES["label"])!r}])
child = os.fork()
if child == 0:
    try:
        model.generate("Hi")
    except edge_mllm.EdgeMLLMError as error:
        model.close()
        print(error, flush=True)
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), model.generate("Hi").finish_reason)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    first, second = ran.stdout.strip().split("\n")
    assert "forked" in first, ran.stderr
    assert second.split()[0] == "7"


@pytest.mark.parametrize("where", ["warm", "prefill"])
def test_an_interrupted_speed_probe_leaves_the_cache_right(starter, expected, monkeypatch, where):
    starter.generate(QUESTION, [PICTURES["label"]])
    genuine = getattr(type(starter.decoder), where)

    def interrupted(self, *args, **kwargs):
        genuine(self, *args, **kwargs)
        raise KeyboardInterrupt

    planner = starter.pipeline._planner
    with monkeypatch.context() as patch:
        patch.setattr(type(starter.decoder), where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            planner._prefill_probe()
    for name, path in PICTURES.items():
        assert starter.generate(QUESTION, [path]).text == expected[name]


def test_no_telemetry_file_is_written(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-m", "edge_mllm", "run", "-i", str(PICTURES["label"]), QUESTION]
    subprocess.run(command, env=environment | {"HOME": str(tmp_path)}, check=True, capture_output=True, timeout=60)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
