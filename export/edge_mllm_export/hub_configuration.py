"""The configuration files of a checkpoint on the hub: some kilobytes, no weights."""

from __future__ import annotations

from pathlib import Path

from edge_mllm_export.errors import SourceError
from edge_mllm_export.hub_errors import hub_errors

_NEEDED = "config.json"
_WANTED = ("preprocessor_config.json", "processor_config.json")


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
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = source.partition("@")
    api = HfApi(endpoint=endpoint)

    def fetch(name: str) -> Path:
        return Path(api.hf_hub_download(repo, name, revision=revision or None, cache_dir=cache_dir))

    with hub_errors(source, repo):
        try:
            path = fetch(_NEEDED)
        except EntryNotFoundError as error:
            raise SourceError(source, f"the file {_NEEDED} is missing there, so it is no checkpoint") from error
        for name in _WANTED:
            try:
                fetch(name)
            except EntryNotFoundError:
                continue
    return path.parent
