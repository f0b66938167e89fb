"""``edge-mllm serve``: one model behind HTTP."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.model import ModelOptions
from edge_mllm.cli.options.output import QuietOption
from edge_mllm.cli.terminal.errors import plain_errors

if TYPE_CHECKING:
    from edge_mllm.serve.settings import Access, Bounds, ServerSettings, Sources

KEY_VARIABLE = "EDGE_MLLM_API_KEY"


@dataclass(frozen=True, kw_only=True)
class AddressOptions:
    """Where the server listens; a group of options."""

    SECTIONS: ClassVar = {"Address": ("host", "port", "name", "tls_cert", "tls_key")}

    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; on loopback, no other machine can ask."),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 lets the system choose.")] = 8080
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name of the model in requests; several times.")
    ] = None
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate (PEM) for https.")] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")] = None


@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """Who may ask, and for pictures from where; a group of options."""

    SECTIONS: ClassVar = {
        "Who may ask": ("api_key", "allow_host", "allow_origin"),
        "Pictures beside those in requests": ("allow_files", "allow_urls"),
    }

    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help=f"Ask for 'Authorization: Bearer KEY'; better in {KEY_VARIABLE}, which no list shows."
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that the server may be called by, beside addresses and localhost."),
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A site whose pages may ask, as https://example.com; by default none."),
    ] = None
    allow_files: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A directory whose pictures requests may name by file: URLs."),
    ] = None
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host from which pictures are fetched over http and https."),
    ] = None

    def access(self) -> Access:
        """Who may ask."""
        from edge_mllm.serve.settings import Access

        return Access(
            api_key=os.environ.get(KEY_VARIABLE) if self.api_key is None else self.api_key,
            hosts=tuple(name.lower() for name in self.allow_host or ()),
            origins=tuple(origin.lower() for origin in self.allow_origin or ()),
        )

    def sources(self) -> Sources:
        """Where pictures may come from."""
        from edge_mllm.serve.settings import Sources

        hosts = tuple(host.lower() for host in self.allow_urls or ())
        return Sources(folders=tuple(self.allow_files or ()), hosts=hosts)


@dataclass(frozen=True, kw_only=True)
class BoundsOptions:
    """What requests may take; a group of options."""

    SECTIONS: ClassVar = {
        "What requests may take": (
            "queue",
            "timeout",
            "read_timeout",
            "max_body",
            "max_images",
            "max_megapixels",
            "max_answer_tokens",
        )
    }

    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Most requests that wait.")] = 32
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Most seconds of a request, waiting included.")
    ] = 600.0
    read_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Most seconds until a request has been sent.")
    ] = 30.0
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="Largest body of a request.")] = "32MiB"
    max_images: Annotated[int, typer.Option(metavar="N", min=1, help="Most pictures of a request.")] = 16
    max_megapixels: Annotated[float, typer.Option(metavar="N", min=0.001, help="Largest picture.")] = 50.0
    max_answer_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most tokens of an answer, whatever a request asks for.")
    ] = 4096

    def bounds(self) -> Bounds:
        """What was typed, checked."""
        from edge_mllm.answer.limits import parse_bytes
        from edge_mllm.serve.settings import Bounds

        body = parse_bytes(self.max_body)
        return Bounds(
            queue=self.queue,
            timeout_s=self.timeout,
            read_s=self.read_timeout,
            body_bytes=body,
            waiting_bytes=max(8 * body, Bounds.waiting_bytes),
            pictures=self.max_images,
            pixels=max(1, round(self.max_megapixels * 1e6)),
            answer_tokens=self.max_answer_tokens,
        )


@plain_errors
@grouped
def serve(
    *,
    loading: ModelOptions,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Do not load a model whose decoder alone is larger, such as 2GB.")
    ] = None,
    address: AddressOptions,
    access: AccessOptions,
    bounding: BoundsOptions,
    quiet: QuietOption = False,
) -> None:
    """Answer requests over HTTP, the OpenAI way and Ollama's way, until Ctrl-C.

    Only this machine can ask unless --host says otherwise.
    """
    _require_extra()
    from edge_mllm.answer.limits import parse_bytes
    from edge_mllm.serve.server import serve as serve_model

    settings = _settings(loading, address, access, bounding)
    memory = None if max_memory is None else parse_bytes(max_memory)
    with loading.load(memory, lasting=True, **loading.tuned()) as model:

        def ready(url: str) -> None:
            if not quiet:
                typer.echo(f"{model.name} on {model.engine} at {url} (Ctrl-C ends)", err=True)
            if not settings.is_local and settings.access.api_key is None:
                typer.echo("edge-mllm: every machine of this network can ask; --api-key lets only some", err=True)

        serve_model(model, settings, ready)


def _settings(
    loading: ModelOptions, address: AddressOptions, access: AccessOptions, bounding: BoundsOptions
) -> ServerSettings:
    from edge_mllm.serve.settings import ServerSettings

    typed = [] if loading.model is None else [str(loading.model)]
    return ServerSettings(
        host=address.host,
        port=address.port,
        names=tuple(dict.fromkeys([*(address.name or ()), *typed])),
        access=access.access(),
        bounds=bounding.bounds(),
        sources=access.sources(),
        tls_cert=address.tls_cert,
        tls_key=address.tls_key,
    )


def _require_extra() -> None:
    from edge_mllm.errors import ExtraMissingError

    for module in ("starlette", "uvicorn", "msgspec"):
        if importlib.util.find_spec(module) is None:
            raise ExtraMissingError("serve", module)
