"""The checkpoint and its unquantised bundle get the same evaluation, answer for answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from eval_files import mme_rows, write_tsv
from PIL import Image

import edge_mllm
from edge_mllm.errors import ContextOverflowError
from edge_mllm.measure.eval import RunSettings, read_task, run_task
from edge_mllm.measure.eval.bundle_answerer import BundleAnswerer
from edge_mllm.measure.eval.compare import compare
from edge_mllm_export.options import ExportOptions
from edge_mllm_export.pipeline import export_bundle
from edge_mllm_export.reference.answerer import ReferenceAnswerer

OPTIONS = ("a cat", "two dogs", "42")


@pytest.fixture(scope="module")
def reference(tiny_smolvlm: Path) -> ReferenceAnswerer:
    return ReferenceAnswerer(str(tiny_smolvlm))


@pytest.fixture(scope="module")
def bundle(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> BundleAnswerer:
    out = tmp_path_factory.mktemp("reference") / "tiny.edge"
    options = ExportOptions(format="onnx", quant="f32", vision="fp32", verify=False)
    export_bundle(str(tiny_smolvlm), out, options)
    return BundleAnswerer(edge_mllm.load(out, engine="onnx"))


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((90, 50)).convert("RGB")


def test_greedy_answers_are_the_same(
    reference: ReferenceAnswerer, bundle: BundleAnswerer, picture: Image.Image
) -> None:
    for question, images in (("What is it?", [picture]), ("Same?", [picture, picture.rotate(90)]), ("Hello?", [])):
        theirs, ours = reference.answer(question, images, 16), bundle.answer(question, images, 16)
        assert theirs.text == ours.text
        for name in ("prompt_tokens", "image_tokens", "completion_tokens"):
            assert theirs.usage[name] == ours.usage[name]
    assert reference.answer("What is it?", [picture], 16).text != reference.answer("Hello?", [], 16).text


def test_option_logprobs_agree_to_float_tolerance(
    reference: ReferenceAnswerer, bundle: BundleAnswerer, picture: Image.Image
) -> None:
    theirs = reference.option_logprobs("Which?", [picture], OPTIONS)
    assert len(set(theirs)) == 3
    assert bundle.option_logprobs("Which?", [picture], OPTIONS) == pytest.approx(theirs, abs=1e-4)


def test_a_whole_run_of_both_compares_as_equal(
    reference: ReferenceAnswerer, bundle: BundleAnswerer, tmp_path: Path
) -> None:
    task = read_task(write_tsv(tmp_path / "MME.tsv", mme_rows()))
    settings = RunSettings(max_new_tokens=8)
    results = [run_task(task, model, settings, tmp_path / model.engine) for model in (reference, bundle)]
    comparison = compare(*results)
    assert comparison.same_reply == comparison.questions == 4
    assert (comparison.engine_a, comparison.engine_b) == ("transformers", "onnx")
    assert results[1].records[0].timings["ttft_s"] > 0


def test_what_does_not_fit_the_context_is_refused(reference: ReferenceAnswerer) -> None:
    with pytest.raises(ContextOverflowError, match="the context holds 2048"):
        reference.answer("x " * 3000, [], 4)
