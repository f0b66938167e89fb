"""``edge-mllm batch``, end to end: rows in, a line for each out, whatever happens in between."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands.benchmark_sets import card_bytes, write_card
from commands.command_line import DEMO, STARTER, command_environment, in_terminal, run_command, run_here

import edge_mllm

pytestmark = pytest.mark.xdist_group("batch-command")
LABEL, SIGN = DEMO / "label.png", DEMO / "sign.png"
SAYS = "What does it say?"
ASK = ("-p", SAYS)
TIMES = re.compile(r'"timings": \{[^}]*\}')


def batch(*args: object) -> list[dict[str, Any]]:
    """Records of a run that succeeds; OUT is the last argument. Several workers are started as a user does it."""
    run = run_command if "--workers" in args else run_here
    done = run("batch", *args[:-1], "-o", args[-1])
    assert (done.code, done.stdout) == (0, ""), done.stderr
    return records(Path(str(args[-1])))


def records(out: Path) -> list[dict[str, Any]]:
    """Lines of an output."""
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def without_times(out: Path) -> list[str]:
    """Lines of an output without what differs from run to run."""
    return [TIMES.sub("", line) for line in out.read_text("utf-8").splitlines()]


def refused(*args: object) -> str:
    """The one line of a command that fails."""
    done = run_here("batch", *args)
    assert (done.code, done.stdout) == (1, "")
    (line,) = done.errors
    assert line.startswith("edge-mllm: ")
    return line


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 small pages, each with a text of its own."""
    folder = tmp_path_factory.mktemp("cards")
    draw = random.Random(5)
    for number in range(40):
        write_card(folder / f"{number:03}.png", f"{draw.choice(('Tea', 'Rice', 'Tram'))} {draw.randrange(100)}")
    return folder


@pytest.fixture(scope="session")
def answered(cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run says of the cards."""
    out = tmp_path_factory.mktemp("answers") / "cards.jsonl"
    batch(cards, *ASK, out)
    return out


def test_a_folder_is_answered_as_one_by_one(cards, answered):
    found = records(answered)
    assert [row["id"] for row in found] == [path.name for path in sorted(cards.iterdir())]
    assert [row["row"] for row in found] == list(range(1, 41))
    with edge_mllm.load() as model:
        for row in found[:10]:
            answer = model.generate(SAYS, cards / row["id"])
            assert (row["text"], row["finish_reason"]) == (answer.text, answer.finish_reason)
            assert row["usage"] == answer.to_dict()["usage"] and row["tiles"] == answer.images[0].tiles
            assert row["images"] == [row["id"]] and row["prompt"] == SAYS and row["timings"]["ttft_s"] > 0


def test_two_workers_say_the_same_in_the_same_order(cards, answered, tmp_path):
    batch(cards, *ASK, "--workers", 2, tmp_path / "two.jsonl")
    assert without_times(tmp_path / "two.jsonl") == without_times(answered)


def test_broken_rows_are_named_and_passed_over(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(card_bytes("Tea")[:60])
    (tmp_path / "in" / "b.jpg").write_bytes(LABEL.read_bytes())
    (tmp_path / "in" / "notes.txt").write_text("not asked about")
    out = tmp_path / "out.jsonl"
    done = run_command("batch", tmp_path / "in", "--prompt", SAYS, "--out", out)
    first, second = records(out)
    assert done.code == 0 and "cannot use picture" in first["error"] and second["text"].strip() == "Coffee $4.60"
    assert done.errors[0].startswith("edge-mllm: row a.png: cannot use picture") and "1 broken" in done.errors[1]
    quiet = run_here("batch", tmp_path / "in" / "a.png", *ASK, "-q", "-o", tmp_path / "none.jsonl")
    assert (quiet.code, len(quiet.errors)) == (1, 1) and "no row was answered" in quiet.stderr
    again = run_here("batch", tmp_path / "in", *ASK, "--quiet", "-o", out)
    assert (again.code, again.stderr) == (0, "") and len(records(out)) == 2


ROWS: list[Any] = [
    {"id": "label", "image": "label.png", "prompt": SAYS, "options": ["Coffee $4.60", "TRAM 18"]},
    {"images": ["label.png"], "prompt": "What is the price?", "options": ["$4.60", "$5.90"]},
    {"id": 7, "image": "data:image/png;base64," + base64.b64encode(SIGN.read_bytes()).decode()},
    {"id": "label", "prompt": "Is it late?", "system": "Be short."},
    {"id": "away", "image": "away.png"},
    {"id": ["x"]},
    ["no object"],
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of rows beside its picture."""
    (tmp_path / "label.png").write_bytes(LABEL.read_bytes())
    text = "\n".join(map(json.dumps, ROWS)) + "\n\n{torn\n"
    (tmp_path / "rows.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    return tmp_path / "rows.jsonl"


def test_rows_of_json_lines(rows, tmp_path):
    found = batch(rows, *ASK, "--max-new-tokens", 20, tmp_path / "out.jsonl")
    assert [row["id"] for row in found][:5] == ["label", found[1]["key"], "7", "label#2", "away"]
    assert [row["row"] for row in found] == list(range(1, 9))
    texts = [row.get("text", "").strip() for row in found]
    assert texts[:3] == ["Coffee $4.60", "$4.60", "TRAM 18 18"]
    reasons = ("no such file", "id of type list", "not an object", "is not JSON")
    assert all(reason in row["error"] for reason, row in zip(reasons, found[4:], strict=True))
    assert found[2]["images"][0].startswith("sha256:") and found[3]["images"] == []
    with edge_mllm.load() as model:
        alone = model.generate("Is it late?", system="Be short.", max_new_tokens=20)
    assert found[3]["text"] == alone.text


def test_options_are_decided_between(rows, tmp_path):
    options = ("--decide", "--options", "Coffee $4.60,TRAM 18")
    found = batch(rows, *ASK, *options, "--calibrate", "--workers", 2, tmp_path / "out.jsonl")
    assert [row.get("best") for row in found[:3]] == ["Coffee $4.60", "$4.60", "TRAM 18"]
    assert "nothing to calibrate by" in found[3]["error"]
    with edge_mllm.load() as model:
        for row, options in ((found[0], ROWS[0]["options"]), (found[1], ROWS[1]["options"])):
            decision = model.decide(row["prompt"], options, LABEL, calibrate=True)
            assert row["options"] == decision.to_dict()["options"]
    begun = batch(LABEL, *ASK, "--decide", "--option", "Coffee", "--option", "Tea", "--beginning", tmp_path / "b.jsonl")
    whole = batch(LABEL, *ASK, "--decide", "--option", "Coffee", "--option", "Tea", "--whole", tmp_path / "w.jsonl")
    assert begun[0]["best"] == whole[0]["best"] == "Coffee"
    assert begun[0]["options"][0]["tokens"] == whole[0]["options"][0]["tokens"] - 1


def test_parquet_in_and_out(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": LABEL.read_bytes(), "path": None}, {"bytes": None, "path": "sign.png"}, None]
    table = pa.table({"id": ["a", "b", "c"], "image": pictures, "prompt": [SAYS, SAYS, None]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    (tmp_path / "sign.png").write_bytes(SIGN.read_bytes())
    out = tmp_path / "out.parquet"
    done = run_here("batch", tmp_path / "in.parquet", "-o", out)
    assert done.code == 0, done.stderr
    found = pq.read_table(out).to_pylist()
    assert [row["id"] for row in found] == ["a", "b", "c"] and "has no prompt" in found[2]["error"]
    assert [(row["text"] or "").strip() for row in found] == ["Coffee $4.60", "TRAM 18 18", ""]
    assert found[0]["usage.prompt_tokens"] == 209 and found[2]["timings.ttft_s"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.parquet",
        "out.parquet",
        "out.parquet.run.json",
        "sign.png",
    ]
    again = run_here("batch", tmp_path / "in.parquet", "-o", out)
    assert again.code == 0 and "3 rows, 3 of them before" in again.stderr
    more = run_here("batch", tmp_path / "in.parquet", *ASK, "-o", out)
    assert more.code == 1 and "asked something else" in more.stderr
    pq.write_table(pa.table({"id": ["z"], "prompt": [SAYS]}), tmp_path / "more.parquet")
    more = run_here("batch", tmp_path / "more.parquet", "-o", out)
    assert more.code == 1 and "it was finished, and 'more.parquet' has the row 'z'" in more.stderr


def test_only_the_same_run_goes_on(cards, answered, tmp_path):
    out = tmp_path / "out.jsonl"
    lines = answered.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:30]) + lines[30][:25])  # torn
    (tmp_path / "out.jsonl.run.json").write_bytes(answered.with_name("cards.jsonl.run.json").read_bytes())
    for options, said in (
        ((*ASK, "--max-new-tokens", 5), "max_new_tokens was 256, is 5"),
        ((*ASK, "--engine", "gguf"), 'engine was "onnx", is "gguf"'),
        ((*ASK, "--decide", "--options", "a,b"), 'kind was "answers", is "decisions"'),
        ((*ASK, "--system", "x"), 'system was null, is "x"'),
        (("-p", "Why?"), "its row '000.png' asked something else"),
    ):
        done = run_here("batch", cards, *options, "-o", out)
        assert (done.code, len(done.errors)) == (1, 1) and said in done.stderr and "another --out" in done.stderr
    assert out.read_bytes().startswith(b"".join(lines[:30]))
    batch(cards, *ASK, out)
    assert out.read_bytes().splitlines(keepends=True)[:30] == lines[:30]  # asked once
    assert without_times(out) == without_times(answered)


def start(*args: object) -> subprocess.Popen[bytes]:
    """A batch in a session of its own, so that its workers can be found."""
    command = [sys.executable, "-m", "edge_mllm", "batch", *map(str, args), "-q"]
    return subprocess.Popen(command, env=command_environment(), start_new_session=True, stderr=subprocess.DEVNULL)


def lines_of(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def children(process: int) -> list[int]:
    """Workers of a batch: processes that it started, the resource tracker of multiprocessing apart."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    kinds = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, line in kinds.items() if b"spawn_main" in line]


def killed_and_resumed(source: Path, out: Path, kills: int, step: int, draw: random.Random) -> int:
    """Kill a run with -9 after some rows, so many times, then let it end; how often it was killed while it worked."""
    worked = 0
    for number in range(kills):
        before = lines_of(out)
        ran = start(source, *ASK, "--workers", 1 + number % 2, "-o", out)
        wanted = before + draw.randint(0, step)
        while ran.poll() is None and lines_of(out) < wanted:
            time.sleep(0.01)
        time.sleep(draw.random() / 20)
        worked += ran.poll() is None
        ran.send_signal(signal.SIGKILL)
        ran.wait()
    batch(source, *ASK, "--workers", 2, out)
    return worked


def test_killed_and_resumed_every_row_is_there_once(cards, answered, tmp_path):
    out = tmp_path / "out.jsonl"
    assert killed_and_resumed(cards, out, 3, 12, random.Random(3)) > 0
    assert without_times(out) == without_times(answered)


def test_a_worker_that_is_killed_loses_nothing(cards, answered, tmp_path):
    out = tmp_path / "out.jsonl"
    ran = start(cards, *ASK, "--workers", 2, "-o", out)
    killed = 0
    for wanted in (1, 6):
        while ran.poll() is None and lines_of(out) < wanted:
            time.sleep(0.005)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):  # it was done before
            os.kill(children(ran.pid)[0], signal.SIGKILL)
            killed += 1
    assert (ran.wait(timeout=100), killed > 0) == (0, True)
    assert without_times(out) == without_times(answered)


def test_an_interrupted_run_says_so_and_goes_on(cards, answered, tmp_path):
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "edge_mllm", "batch", str(cards), *ASK, "--workers", "2", "-o", str(out)]
    ran = subprocess.Popen(
        command, env=command_environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while ran.poll() is None and lines_of(out) < 3:
        time.sleep(0.01)
    os.killpg(ran.pid, signal.SIGSTOP)  # it must not be done before the other one begins
    other = run_command("batch", cards, *ASK, "-o", out)
    os.killpg(ran.pid, signal.SIGCONT)
    assert other.code == 1 and "another process writes it now" in other.stderr
    os.killpg(ran.pid, signal.SIGINT)
    assert ran.stderr is not None and ran.stderr.read() == "edge-mllm: interrupted\n" and ran.wait() == 130
    batch(cards, *ASK, out)
    assert without_times(out) == without_times(answered)


def test_a_terminal_shows_how_far_it_is(cards, tmp_path):
    code, shown = in_terminal("batch", cards / "00*.png", *ASK, "-o", tmp_path / "out.jsonl", columns=120)
    assert code == 0 and re.search(r"\d+/10 .*\d\.\d\d/s", shown) and "out.jsonl: 10 rows" in shown


def test_the_model_is_loaded_and_answers_as_by_run(tmp_path, exported_starter):
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    plain = batch(LABEL, *ASK, tmp_path / "plain.jsonl")[0]["text"]
    for number, option in enumerate((
        ("-m", STARTER, "--threads", 1, "--n-ctx", 512, "--low-memory", "--no-large-pages", "--detail", "high"),
        ("--model", exported_starter, "--no-prompt-weights", "--vision-engine", "ort", "--seed", 1),
        ("--provider", "cpu", "--large-pages"),
        ("-m", exported_starter, "--prompt-weights", "--cache-dir", tmp_path / "seen", "--prompt-lookup", 4),
        ("--engine", "gguf", "--kv-type", "f32", "--max-memory", "8GB", "--max-ttft", 100),
        ("-m", STARTER / "decoder.gguf", "--mmproj", exported_starter / "mmproj.gguf", "--stop", "zzz"),
        ("--temperature", 0.1, "--top-k", 1, "--top-p", 0.9, "--min-p", 0.1, "--repetition-penalty", 1.0),
    )):  # fmt: skip
        assert batch(LABEL, *ASK, *option, tmp_path / f"{number}.jsonl")[0]["text"] == plain, option
    few = batch(LABEL, *ASK, "--max-image-tokens", 40, "--image-reduction", "uniform:1/2", tmp_path / "few.jsonl")[0]
    assert few["usage"]["image_tokens"] < 40 and few["reduction"]["tokens_after"] < few["reduction"]["tokens_before"]
    held = batch(LABEL, *ASK, "--json-schema", schema, "--max-new-tokens", 4, tmp_path / "held.jsonl")[0]
    assert held["text"].startswith('{"a"')


def test_a_published_directory_and_a_name_of_the_hub(shop, published_starter, tmp_path):
    option = ("-m", published_starter, "--precision", "decoder_model_merged=q4")
    assert batch(LABEL, *ASK, *option, tmp_path / "a.jsonl")[0]["text"].strip() == "Coffee $4.60"
    named = ("-m", "org/gguf", "--layout", "gguf", "--quant", "Q4_0", "--workers", 2)
    done = shop.type("batch", LABEL, *ASK, *named, "-o", tmp_path / "b.jsonl")
    assert done.code == 0 and records(tmp_path / "b.jsonl")[0]["text"].strip() == "Coffee $4.60"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((DEMO, "-o", "out.jsonl"), "pictures alone ask nothing; give a --prompt"),
        ((DEMO, *ASK, "-o", "out.txt"), "must end in .jsonl, .ndjson or .parquet"),
        ((DEMO, *ASK, "-o", "nowhere/out.jsonl"), "there is no directory 'nowhere'"),
        (("away", *ASK, "-o", "out.jsonl"), "no such file, folder or pattern"),
        (("away.jsonl", "-o", "out.jsonl"), "cannot read the task 'away.jsonl': no such file"),
        (("a.jsonl", "b.jsonl", "-o", "out.jsonl"), "a file of rows stands alone"),
        ((DEMO, *ASK, "-o", "out.jsonl", "--decide", "--temperature", 1), "--decide does not use --temperature"),
        ((DEMO, *ASK, "-o", "out.jsonl", "--options", "a,b"), "batch without --decide does not use --options"),
        ((DEMO, *ASK, "-o", "out.jsonl", "-m", "away.edge"), "no model at 'away.edge'"),
        ((DEMO, *ASK, "-o", "out.jsonl", "--json-schema", os.devnull), "cannot use the JSON schema: it is not JSON"),
        ((DEMO, *ASK, "-o", "mine.jsonl"), "there is something there, and no 'mine.jsonl.run.json'"),
    ],
)
def test_mistakes_are_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text('{"id": "a list of mine"}\n')
    assert said in refused(*arguments)
    assert Path("mine.jsonl").read_text() == '{"id": "a list of mine"}\n'


def test_a_cluster_needs_its_extra_and_somebody_there(tmp_path, monkeypatch):
    command = (DEMO, *ASK, "-o", tmp_path / "out.jsonl", "--ray")
    if importlib.util.find_spec("ray"):
        assert "no Ray cluster at '127.0.0.1:9'" in refused(*command, "127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "type: pip install 'edge-mllm[cluster]'" in refused(*command, "local")


@pytest.mark.slow
def test_500_pages_killed_20_times(tmp_path):
    """The same answers as one by one, every row once."""
    draw = random.Random(9)
    for number in range(500):
        words = [draw.choice(("Tea", "Rice", "Tram", "Total", "Milk")) + f" {draw.randrange(1000)}" for _ in range(2)]
        write_card(tmp_path / "pages" / f"{number:03}.png", " ".join(words))
    out = tmp_path / "out.jsonl"
    assert killed_and_resumed(tmp_path / "pages", out, 20, 30, draw) >= 15
    found = records(out)
    assert [row["id"] for row in found] == [f"{number:03}.png" for number in range(500)]
    with edge_mllm.load() as model:
        for row in found:
            assert row["text"] == model.generate(SAYS, tmp_path / "pages" / row["id"]).text


@pytest.mark.slow
def test_a_node_of_a_cluster_is_killed(cards, answered, tmp_path):
    """Two nodes, one actor on each; the second node goes half-way."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    out = tmp_path / "out.jsonl"
    try:
        ran = start(cards, *ASK, "--threads", 1, "--workers", 2, "--ray", cluster.address, "-o", out)
        while ran.poll() is None and lines_of(out) < 12:
            time.sleep(0.02)
        assert ran.poll() is None and lines_of(out) < 36
        cluster.remove_node(node, allow_graceful=False)
        assert ran.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    assert without_times(out) == without_times(answered)
