"""Files into a repository of the hub, in one commit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from edge_mllm.errors import HubError
from edge_mllm.hub.errors import hub_errors

_REFUSALS = {
    401: "the hub does not know the token; log in again with 'hf auth login'",
    403: "the token may not write there; it needs the right to write, to a name of your own or your organisation",
    404: "there is no such user, organisation or branch on the hub",
}


class PushError(HubError):
    """A bundle cannot be put on the hub."""

    def _text(self) -> str:
        return f"cannot push to '{self.name}': {self.reason}"


def push_files(
    repo: str, files: Mapping[str, Path | bytes], *, revision: str | None, private: bool, message: str
) -> str:
    """Make the repository where it is missing, and commit all files at once.

    Args:
        repo: ``org/name``.
        files: Name in the repository -> a file, or its content. What the repository holds beside them stays.
        revision: A branch; None is the main one.
        private: Of a repository that is made now.
        message: Of the commit.

    Returns:
        Where the commit can be seen.

    Raises:
        PushError: Nobody is logged in, the hub refuses, or it cannot be reached; then nothing was committed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token, utils

    if get_token() is None:
        raise PushError(repo, "nobody is logged in; log in with 'hf auth login', or set HF_TOKEN")
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    api = HfApi()
    try:
        with hub_errors(repo, repo, PushError):
            operations = [
                CommitOperationAdd(name, os.fspath(content) if isinstance(content, Path) else content)
                for name, content in files.items()
            ]
            api.create_repo(repo, private=private or None, exist_ok=True)
            done = api.create_commit(repo, operations, commit_message=message, revision=revision)
    except ValueError as error:  # a refusal without the hub's JSON, as a proxy gives it
        raise PushError(repo, "what answered is not the hub; check HF_ENDPOINT and the network") from error
    except PushError as error:
        reason = _REFUSALS.get(_status(error.__cause__))
        if reason is None:
            raise
        raise PushError(repo, reason) from error
    return str(done.commit_url)


def _status(cause: BaseException | None) -> int:
    """The hub's HTTP status; 0 where it gave none."""
    return int(getattr(getattr(cause, "response", None), "status_code", 0) or 0)
