"""A bundle without its verification: every part, and bundle.json."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from datetime import UTC, datetime

from edge_mllm.bundle.spec import DECIDED, SCHEMA_VERSION, BundleSpec, PromptSpec, Source
from edge_mllm.errors import PromptError
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm.prompt.turns import find_turns
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.write.npu.tower import write_npu_towers
from edge_mllm_export.write.parts import Written, steps
from edge_mllm_export.write.place import describe, write_manifest

_LIBRARIES = (
    "edge-mllm",
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-genai",
    "onnxruntime-qnn",
    "gguf",
    "llama-cpp-python",
)


def write_bundle(job: Job, name: str, announce: Announce = lambda _: None) -> BundleSpec:
    """Write all parts and bundle.json into the job's staging directory.

    Args:
        job: With recipes, and what they must be measured with.
        name: Of the bundle.
        announce: Told about each step.

    Returns:
        What was written to bundle.json; its verification is empty.
    """
    written = []
    for part, step in steps(job.recipes).items():
        announce(f"writing {part}")
        written.append(step(job))
    spec = _manifest(job, name, written, _prompt(job, announce))
    npu = [tower for target in job.targets for tower in write_npu_towers(job, target, announce)]
    spec = replace(spec, npu=tuple(npu))
    write_manifest(spec, job.staging)
    return spec


def _manifest(job: Job, name: str, written: list[Written], prompt: PromptSpec) -> BundleSpec:
    """What bundle.json says of the parts that were written."""
    checkpoint, family = job.checkpoint, job.family
    parts = {
        part: describe(job.staging / file, precision)
        for step in written
        for part, (file, precision) in step.files.items()
    }
    return BundleSpec(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=Source(
            id=checkpoint.id,
            revision=checkpoint.revision,
            sha256=checkpoint.sha256(),
            licence=checkpoint.licence,
            family=family.name,
            random_weights=checkpoint.random_weights,
        ),
        image=family.image(checkpoint),
        vision=family.vision(checkpoint),
        prompt=prompt,
        decoder=family.decoder(checkpoint),
        parts=parts,
        recipe={key: value for step in written for key, value in step.report.items()} | _decided(job),
        verification={},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        exporter=_versions(),
    )


def _decided(job: Job) -> dict[str, dict[str, list[str]]]:
    """What was chosen where the checkpoint's files contradict each other."""
    found = job.family.decided(job.checkpoint)
    return {DECIDED: {"sentences": list(found)}} if found else {}


def _prompt(job: Job, announce: Announce) -> PromptSpec:
    """With the chat template as pieces, for phones; without them where it cannot be written so."""
    prompt = job.family.prompt(job.checkpoint)
    try:
        return replace(prompt, turns=find_turns(ChatTemplate(job.family.chat_template(job.checkpoint)), prompt))
    except PromptError as error:
        announce(f"the bundle will not run on a phone: {error}")
        return prompt


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
