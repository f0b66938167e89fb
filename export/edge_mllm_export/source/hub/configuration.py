"""The configuration files of a checkpoint on the hub: some kilobytes, no weights."""

from __future__ import annotations

from pathlib import Path

from edge_mllm.hub.errors import hub_errors
from edge_mllm.hub.fetch import is_unreachable
from edge_mllm_export.errors import SourceError
from edge_mllm_export.source.hub.download import cached_snapshot

_NEEDED = ("config.json", "adapter_config.json")
"""The first that is there; an adapter's repository has the second alone."""
_PATIENCE_S = 10.0
_WANTED = ("preprocessor_config.json", "processor_config.json", "README.md")


def fetch_configuration(source: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> Path:
    """Fetch config.json and the processor's settings of ``org/name[@revision]``; return their directory.

    Args:
        source: The hub id.
        endpoint: Address of the hub; huggingface_hub's default (HF_ENDPOINT) when absent.
        cache_dir: huggingface_hub's cache directory; its default when absent.

    Raises:
        SourceError: Not found, gated, or no network.
    """
    from huggingface_hub import HfApi

    repo, _, wanted = source.partition("@")
    api, revision = HfApi(endpoint=endpoint), wanted or None
    try:
        with hub_errors(
            source, repo, SourceError
        ):  # unlike a download, this question is not asked again for half a minute
            info = api.model_info(repo, revision=revision, timeout=_PATIENCE_S)
    except SourceError as error:
        cached = cached_snapshot(repo, wanted or "main", cache_dir) if is_unreachable(error.__cause__) else None
        if cached is None:
            raise
        return cached.path
    there = {file.rfilename for file in info.siblings or ()}
    if not there & set(_NEEDED):
        raise SourceError(source, f"the file {_NEEDED[0]} is missing there, so it is no checkpoint")
    with hub_errors(source, repo, SourceError):
        found = [
            Path(api.hf_hub_download(repo, name, revision=revision, cache_dir=cache_dir))
            for name in (*_NEEDED, *_WANTED)
            if name in there
        ]
    return found[0].parent
