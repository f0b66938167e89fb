"""Groups of options: what is typed arrives in a dataclass, and nothing that can be typed is lost on the way."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

import edge_mllm
from edge_mllm.cli.options.answer import AnswerOptions, DetailName
from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import EngineName, KVTypeName, LayoutName, ModelOptions, VisionEngineName


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option("-w", "--width", min=1)] = 3
    unit: Annotated[str, typer.Option(help="Of the width.")] = "mm"


@dataclass(frozen=True, kw_only=True)
class Tall(Size):
    unit: Annotated[str, typer.Option(help="Of the width.")] = "km"


def called(kind: type[Size], *typed: str) -> tuple[int, list[Any], str]:
    seen: list[Any] = []

    def command(name: str, *, size: Size, loud: bool = False) -> None:
        seen.extend([name, size, loud])

    command.__annotations__["size"] = kind
    app = typer.Typer(rich_markup_mode=None)
    app.command()(grouped(command))
    result = CliRunner().invoke(app, list(typed))
    return result.exit_code, seen, result.output


def test_fields_become_options():
    assert called(Size, "a", "-w", "7", "--loud") == (0, ["a", Size(width=7), True], "")


def test_a_group_may_change_a_default():
    assert called(Tall, "a") == (0, ["a", Tall(width=3, unit="km"), False], "")


def test_checks_of_an_option_hold():
    code, seen, output = called(Size, "a", "--width", "0")
    assert (code, seen) == (2, [])
    assert "'--width'" in output


def test_one_name_twice_is_an_error():
    def command(*, size: Size, unit: str = "") -> None: ...

    with pytest.raises(ValueError, match="unit"):
        grouped(command)


LOADED = {
    "engine": EngineName.gguf, "threads": 3, "n_ctx": 99, "kv_type": KVTypeName.q8_0, "cache_dir": Path("kept"),
    "low_memory": True, "precision": "q4", "mmproj": Path("m.gguf"), "vision_engine": VisionEngineName.openvino,
    "prompt_weights": False, "layout": LayoutName.gguf, "quant": "Q8_0", "provider": "qnn:v75",
}  # fmt: skip
ASKED = {
    "max_new_tokens": 5, "temperature": 0.5, "top_k": 4, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.5,
    "seed": 1, "stop": ["."], "detail": DetailName.low, "max_image_tokens": 64, "max_memory": "1GB", "max_ttft": 2.0,
    "image_reduction": "pool:1/4", "prompt_lookup": 3,
}  # fmt: skip


def test_all_options_of_a_model_are_tested():
    assert {field.name for field in dataclasses.fields(ModelOptions)} == {*LOADED, "model", "large_pages"}


@pytest.mark.parametrize("name", list(LOADED))
def test_every_option_of_a_model_reaches_it(name, monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(edge_mllm, "load", lambda path, **given: asked.append({"path": path, **given}))
    ModelOptions(model=Path("a.edge")).load(None)
    ModelOptions(model=Path("a.edge"), **{name: LOADED[name]}).load(None)
    plain, changed = asked
    assert plain["path"] == changed["path"] == Path("a.edge")
    assert {key for key in plain if plain[key] != changed[key]} == {name}
    assert changed[name] == LOADED[name]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AnswerOptions)])
def test_every_option_of_an_answer_changes_the_request(name, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text("{}")
    assert AnswerOptions(**{name: {**ASKED, "json_schema": schema}[name]}).request() != AnswerOptions().request()


class Loaded:
    def __init__(self, engine: str) -> None:
        self.engine, self.large = engine, False

    def use_large_pages(self) -> None:
        self.large = True


@pytest.mark.parametrize(
    ("typed", "engine", "lasting", "large"),
    [
        (None, "onnx", False, False),
        (None, "onnx", True, True),
        (None, "gguf", True, False),
        (False, "onnx", True, False),
        (True, "gguf", False, True),
    ],
)
def test_large_pages_by_default_where_they_pay(typed, engine, lasting, large, monkeypatch):
    model = Loaded(engine)
    monkeypatch.setattr(edge_mllm, "load", lambda _path, **_given: model)
    assert ModelOptions(large_pages=typed).load(None, lasting=lasting) is model
    assert model.large == large


def test_settings_of_tune_are_added(monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(edge_mllm, "load", lambda _path, **given: asked.append(given))
    ModelOptions(n_ctx=7).load(1 << 30, threads=2, chunk=64)
    assert {key: asked[0][key] for key in ("threads", "chunk", "n_ctx", "max_memory")} == {
        "threads": 2, "chunk": 64, "n_ctx": 7, "max_memory": 1 << 30,
    }  # fmt: skip
