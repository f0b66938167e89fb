"""One mutated input each: made from a seed, used as a caller would, through the package's public names."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fuzz.gguf_places import damaged_gguf
from fuzz.mutations import damaged_bytes, damaged_json, damaged_text
from fuzz.sources import PICTURE, SCHEMAS

SHARES: Mapping[str, int] = {
    "bundle onnx": 16, "bundle gguf": 16, "published": 14, "pair": 14, "picture": 14, "chat": 6, "embeddings": 4,
    "schema": 6, "messages": 5, "benchmark": 5,
}  # fmt: skip
"""Parts of a hundred."""
_GGUF_FRONT = 1 << 15
_QUESTION = "What is this?"


def case_of(number: int, shares: Mapping[str, int] = SHARES) -> str:
    """The kind of the ``number``-th case; every hundred cases have all kinds in their shares."""
    place = number * 37 % 100
    for kind, share in shares.items():
        if place < share:
            return kind
        place -= share
    raise AssertionError(number)


class Cases:
    """All kinds, over one folder of sources."""

    def __init__(self, sources: Path, work: Path, seed: int) -> None:
        self._sources, self._work, self._seed = sources, work, seed
        self._models: dict[str, object] = {}

    def run(self, number: int) -> None:
        """Make a case and use it.

        Raises:
            EdgeMLLMError: It was refused.
        """
        kind = case_of(number)
        rng = random.Random(f"{self._seed} {number}")
        place = self._work / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        runs: Mapping[str, Callable[[random.Random, Path], None]] = {
            "bundle onnx": lambda rng, place: self._bundle("onnx", rng, place),
            "bundle gguf": lambda rng, place: self._bundle("gguf", rng, place),
            "published": self._published,
            "pair": self._pair,
            "picture": self._picture,
            "chat": self._chat,
            "embeddings": self._embeddings,
            "schema": self._schema,
            "messages": self._messages,
            "benchmark": self._benchmark,
        }
        runs[kind](rng, place)

    def _bundle(self, engine: str, rng: random.Random, place: Path) -> None:
        source, other = self._sources / "bundle", {"onnx": ("decoder_gguf",), "gguf": ("decoder_onnx", "embeddings")}
        manifest = json.loads((source / "bundle.json").read_text())
        used = [part for name, part in manifest["parts"].items() if name not in other[engine] and name != "mmproj"]
        files = ["bundle.json", *(part["file"] for part in used)]
        file = rng.choice([*files, "bundle.json"])
        for whole in source.iterdir():
            os.link(whole, place / whole.name)
        damage(place / file, rng)
        for part in manifest["parts"].values():
            if part["file"] == file:
                data = (place / file).read_bytes()
                part |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                write_file(place / "bundle.json", json.dumps(manifest).encode())
        if rng.random() < 0.1:
            _command("inspect", str(place))
        if rng.random() < 0.1:
            _command("plan", str(place))
        _use(place, engine=engine)

    def _published(self, rng: random.Random, place: Path) -> None:
        source = self._sources / "published"
        files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
        for name in files:
            (place / name).parent.mkdir(exist_ok=True)
            os.link(source / name, place / name)
        damage(place / rng.choice(files), rng)
        if rng.random() < 0.1:
            _command("inspect", str(place))
        _use(place)

    def _pair(self, rng: random.Random, place: Path) -> None:
        for name in ("model.gguf", "mmproj.gguf"):
            os.link(self._sources / "pair" / name, place / name)
        damage(place / rng.choice(("model.gguf", "mmproj.gguf")), rng)
        if rng.random() < 0.1:
            _command("inspect", str(place / "model.gguf"))
        _use(place / "model.gguf", mmproj=place / "mmproj.gguf")

    def _picture(self, rng: random.Random, place: Path) -> None:
        source = rng.choice(sorted((self._sources / "pictures").iterdir()))
        data = damaged_bytes(source.read_bytes(), rng, front=rng.choice((0, 64, 400)))
        (place / source.name).write_bytes(data)
        self._model("onnx").generate(_QUESTION, [place / source.name], max_new_tokens=2, max_memory=3_000_000_000)

    def _chat(self, rng: random.Random, place: Path) -> None:
        engine = rng.choice(("onnx", "gguf"))
        data = (self._sources / f"chat.{engine}").read_bytes()
        magic, digest, sizes, rest = data.split(b"\n", 3)
        told, length = (int(word) for word in sizes.split())
        if rng.random() < 0.5:
            head = damaged_json(rest[told : told + length].decode(), rng).encode("utf-8", "surrogatepass")
            body = f"{told} {len(head)}\n".encode() + rest[:told] + head + rest[told + length :]
        else:
            body = damaged_bytes(sizes + b"\n" + rest, rng, front=len(sizes) + 1 + told + length)
        if rng.random() < 0.9:  # the hash made right again
            digest = hashlib.sha256(body).hexdigest().encode()
        (place / "chat").write_bytes(magic + b"\n" + digest + b"\n" + body)
        self._model(engine).load_chat(place / "chat").ask("And now?", max_new_tokens=2)

    def _embeddings(self, rng: random.Random, place: Path) -> None:
        import edge_mllm

        source = rng.choice(sorted((self._sources / "cache").iterdir()))  # of the picture or of a tile
        data = damaged_bytes(source.read_bytes(), rng, front=rng.choice((0, 80)))
        if rng.random() < 0.5:
            data = data[:48] + hashlib.sha256(data[80:]).digest() + data[80:]
        (place / source.name).write_bytes(data)
        with edge_mllm.load(self._sources / "bundle", engine="onnx", threads=1, cache_dir=place) as model:
            model.generate(_QUESTION, [PICTURE], max_new_tokens=2)

    def _schema(self, rng: random.Random, place: Path) -> None:
        schema = damaged_json(json.dumps(rng.choice(SCHEMAS)), rng)
        self._model(rng.choice(("onnx", "gguf"))).generate(_QUESTION, max_new_tokens=8, json_schema=schema)

    def _messages(self, rng: random.Random, place: Path) -> None:
        words = (
            "Hello",
            "<image>",
            "<|im_end|>",
            "\0",
            "\ud800",
            "\N{PILE OF POO}",
            "{{ 1 }}",
            "\r\n",
            "a" * 999,
            "{%",
        )
        text = damaged_text(" ".join(rng.choices(words, k=rng.randrange(8))), rng)
        model = self._model(rng.choice(("onnx", "gguf")))
        options = {"system": rng.choice((None, text)), "stop": rng.choice(((), (text,), ("a", "")))}
        model.generate(text, [PICTURE] * rng.randrange(3), max_new_tokens=rng.choice((2, 0, 9)), **options)

    def _benchmark(self, rng: random.Random, place: Path) -> None:
        from edge_mllm.measure.eval.pictures import open_picture
        from edge_mllm.measure.eval.readers import read_task

        source = rng.choice(sorted((self._sources / "tasks").iterdir()))
        file = place / source.name
        os.link(source, file)
        damage(file, rng)
        for question in read_task(file).questions:
            for picture in question.pictures:
                open_picture(picture)

    def _model(self, engine: str) -> object:
        import edge_mllm

        if engine not in self._models:
            self._models[engine] = edge_mllm.load(self._sources / "bundle", engine=engine, threads=1)
        return self._models[engine]


def damage(file: Path, rng: random.Random) -> None:
    """Change a file as its kind suggests; it may be a link to the whole one."""
    data = file.read_bytes()
    if (file.suffix == ".json" and file.name != "set.json") or (file.suffix == ".json" and rng.random() < 0.7):
        changed = damaged_json(data.decode(), rng).encode("utf-8", "surrogatepass")
    elif file.suffix in (".jinja", ".tsv", ".csv", ".jsonl"):
        changed = damaged_text(data.decode(), rng).encode("utf-8", "surrogatepass")
    elif file.suffix == ".gguf" and rng.random() < 0.5:
        changed = damaged_gguf(data, rng)
    else:
        front = {".gguf": _GGUF_FRONT, ".npy": 128, ".onnx": 4096}.get(file.suffix, 0)
        changed = damaged_bytes(data, rng, front=front if rng.random() < 0.8 else 0)
    write_file(file, changed)


def write_file(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


def _use(path: Path, **options: object) -> None:
    import edge_mllm

    with edge_mllm.load(path, threads=1, **options) as model:
        model.generate(_QUESTION, [PICTURE], max_new_tokens=3)


def _command(*arguments: str) -> None:
    """A command that reads the same files; what it raises beside its exit is raised here."""
    from typer.testing import CliRunner

    from edge_mllm.cli.main import app

    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code and len(result.stderr.splitlines()) != 1:
        raise AssertionError(f"{arguments[0]}: {result.stderr[:300]!r}")
