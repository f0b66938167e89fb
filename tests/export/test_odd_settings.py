"""Settings that fine-tunes and trainers leave in a checkpoint's files: followed, told, or refused by file and field."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture
from tiny_llava_original import make_tiny_bunny

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import CheckpointError, VerificationError
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.model import load_model
from edge_mllm_export.reference.reference import Reference
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.tokenizer.directory import read_directory_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:2cf7f8287f7e928214960b6691b0ea2d\nsize 1484\n"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("odd")
    return {family: make_tiny(family, home) for family in ("idefics3", "qwen2_vl")}


@pytest.fixture
def smolvlm(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["idefics3"], tmp_path / "smolvlm"))


@pytest.fixture
def qwen(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["qwen2_vl"], tmp_path / "qwen"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


class WithoutModel(Reference):
    """The reference's processor alone."""

    def __init__(self, checkpoint: Checkpoint, family: Family) -> None:
        super().__init__(checkpoint, family, resolve_task(checkpoint, family))

    def _load(self, *_: object) -> None:
        """No weights."""


@pytest.mark.parametrize("tokens", [["<tool>"], {"tool_token": "<tool>"}])
def test_a_declared_token_without_an_embedding_is_text_and_told(smolvlm: Path, tokens: Any) -> None:
    """transformers' model stops at it, so verification cannot ask about it; it used to fail there."""
    change(smolvlm / "tokenizer_config.json", extra_special_tokens=tokens)
    opened = open_checkpoint(smolvlm)
    reference = WithoutModel(opened, find_family(opened))
    assert reference.processor.described["tokenizer"]["without_embedding"] == ["<tool>"]
    assert "<tool>" not in reference.markers and "<row_1_col_1>" in reference.markers
    assert max(Pair(smolvlm).tokenizer.encode("a<tool>b").ids) < find_family(opened).decoder(opened).n_vocab


def test_a_length_at_which_a_trainer_cut_its_texts_cuts_no_prompt(smolvlm: Path) -> None:
    """transformers' processors cut there, through the middle of pictures, and then refuse the prompt."""
    cut = {"direction": "Left", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    change(smolvlm / "tokenizer.json", truncation=cut)
    pair = Pair(smolvlm)
    assert pair.processor.described["tokenizer"]["cuts_at"] == 20
    for pictures in ([], [picture(90, 40)]):
        found = pair.compare(pictures, "What  5 " * 30)
        assert found.ids_equal and found.pixels_equal and len(found.ids) > 60


def test_a_tokenizer_that_reads_its_marks_as_text_is_refused(smolvlm: Path) -> None:
    change(smolvlm / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json', split_special_tokens: is true"):
        read_directory_tokenizer(smolvlm)


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_damaged_tokenizer_config_is_named(smolvlm: Path, text: str) -> None:
    (smolvlm / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json': is not"):
        read_directory_tokenizer(smolvlm)


def test_kernels_of_the_machine_of_the_training_are_not_asked_for(qwen: Path) -> None:
    config = json.loads((qwen / "config.json").read_text(encoding="utf-8"))
    named = {"_attn_implementation": "flash_attention_2", "attn_implementation": "flash_attention_2"}
    sections = {name: config[name] | named for name in ("text_config", "vision_config")}
    change(qwen / "config.json", **named, **sections)
    assert facts_of_source(str(qwen)).shape is not None
    opened = open_checkpoint(qwen)
    family = find_family(opened)
    model = load_model(opened, resolve_task(opened, family).model_class, "float32")
    assert model.config._attn_implementation == "eager"


def test_what_transformers_cannot_load_is_one_sentence(qwen: Path) -> None:
    opened = open_checkpoint(qwen)
    model_class = resolve_task(opened, find_family(opened)).model_class
    for file in qwen.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(VerificationError, match="transformers cannot load the model of") as caught:
        load_model(opened, model_class, "float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architectures": "Qwen2VLForConditionalGeneration"}, r"architectures: is 'Qwen2VL\w+', expected a list"),
        ({"model_type": "llama"}, r"model_type: is 'llama', but Qwen2VLForConditionalGeneration has 'qwen2_vl'"),
        ({"dtype": "auto"}, r"config.json', dtype: is no configuration that transformers can read"),
        ({"vision_config": {"depth": 1, "hidden_act": "none"}}, r"vision_config: makes no model"),
        ({"text_config": {"hidden_act": "none"}}, r"text_config: makes no model"),
    ],
)
def test_plan_and_export_refuse_in_one_sentence(qwen: Path, tmp_path: Path, fields: Any, says: str) -> None:
    config = json.loads((qwen / "config.json").read_text(encoding="utf-8"))
    whole = {name: config[name] | value if isinstance(value, dict) else value for name, value in fields.items()}
    change(qwen / "config.json", **whole)
    options = ExportOptions(format="gguf", quant="f16", verify=False)
    for open_it in (
        lambda: facts_of_source(str(qwen)),
        lambda: export_bundle(str(qwen), tmp_path / "x.edge", options),
    ):
        with pytest.raises(EdgeMLLMError, match=says) as caught:
            open_it()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.edge").exists()


def test_original_layouts_are_read_with_the_same_care(tmp_path: Path) -> None:
    """A length at which texts were cut is not the tokenizer's fault; what is damaged is named, not a copy of it."""
    (tmp_path / "scratch").mkdir()
    source = make_tiny_bunny(tmp_path / "bunny")
    cut = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
    change(source / "tokenizer.json", truncation=cut)
    assert Pair.of(resolve_source(str(source), tmp_path / "scratch")).compare([picture(40, 40)], "What?").ids_equal
    change(source / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(CheckpointError, match=r"bunny/tokenizer_config.json', split_special_tokens: is true"):
        resolve_source(str(source), tmp_path / "scratch")
    for text, says in (("{", "is not JSON"), (POINTER, "holds Git LFS pointers in place of tokenizer_config.json")):
        (source / "tokenizer_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=says):
            resolve_source(str(source), tmp_path / "scratch")


def _as_in_the_hubs_cache(source: Path, home: Path) -> Path:
    """A snapshot whose files are links to blobs, all of it read-only."""
    copy = home / "Kopien von Modellen" / "models--org--\u6a21\u578b \u00fc"
    blobs, snapshot = copy / "blobs", copy / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        (blobs / f"{number:064x}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / f"{number:064x}")
    for folder in (snapshot, blobs):
        folder.chmod(0o555)
    return snapshot


def test_a_snapshot_of_links_in_folders_with_spaces_is_exported_from_where_one_stands(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edge_mllm

    snapshot = _as_in_the_hubs_cache(checkpoints["idefics3"], tmp_path)
    (tmp_path / "where I stand").mkdir()
    monkeypatch.chdir(tmp_path / "where I stand")
    source = os.path.relpath(snapshot)
    assert facts_of_source(source).context_length == 2048
    options = ExportOptions(format="gguf", quant="f16", vision="fp32", verify=False, calibration=False)
    export_bundle(source, Path("neu \u00fc") / "\u6a21\u578b.edge", options)
    with edge_mllm.load(Path("neu \u00fc") / "\u6a21\u578b.edge", threads=1) as model:
        assert model.generate("Hi", images=[picture(40, 40)], max_new_tokens=2).usage.image_tokens > 0
    assert resolve_source(source, tmp_path).id == "0123abcd"
