"""What can go wrong between us and the hub, each as one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_mllm.errors import EdgeMLLMError, HubError

Raised = Callable[[str, str], EdgeMLLMError]
"""Makes an error from what was asked for and the reason."""


@contextmanager
def hub_errors(source: str, repo: str, raised: Raised = HubError) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one of ours.

    Args:
        source: What was asked for, for the message.
        repo: ``org/name``.
        raised: The error's class.

    Raises:
        HubError: In place of any error of the hub, the network or the disk.
    """
    from huggingface_hub import errors

    # The transport library differs between releases (httpx, httpx2); its base class is the hub's own base class.
    transport_error = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError) as error:
        raise raised(source, _sentence(error, repo)) from error
    except (errors.OfflineModeIsEnabled, errors.FileMetadataError, transport_error) as error:
        raise raised(source, _unreachable(error)) from error
    except OSError as error:
        raise raised(source, _local(error)) from error


def _sentence(error: Exception, repo: str) -> str:
    from huggingface_hub import errors

    login = "log in with 'hf auth login'"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"the model is gated; accept its terms at https://huggingface.co/{repo}, then {login}"),
        (
            errors.RepositoryNotFoundError,
            f"no such directory, and no such model on the hub (if it is private, {login})",
        ),
        (errors.RevisionNotFoundError, f"the model {repo} has no such revision"),
        (errors.RemoteEntryNotFoundError, f"a file of the model is missing on the hub ({_last_line(error)})"),
        (errors.DisabledRepoError, "the hub has disabled access to this model"),
        (errors.HFValidationError, "no such directory, and not a name the hub could have (org/name[@revision])"),
        (errors.LocalEntryNotFoundError, _unreachable(error.__cause__ or error)),
    )
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    if status in (401, 403):
        return f"the hub refuses access; if the model is private, {login}"
    return f"the hub answered with HTTP status {status}; try again later"


def _unreachable(error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            "it is not in the download cache and HF_HUB_OFFLINE forbids asking the hub; unset it, or give a directory"
        )
    return f"the hub cannot be reached ({_last_line(error)}); check the network, or give a local directory"


def _local(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk became full while downloading; make room and try again, complete files are kept"
    return f"the download failed ({_last_line(error)}); try again, complete files are kept"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
