"""``edge-mllm push``: a bundle with its model card into a repository of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_mllm.cli.options.groups import grouped
from edge_mllm.cli.options.output import JsonOptions
from edge_mllm.cli.terminal.errors import plain_errors


@plain_errors
@grouped
def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle that export made.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME[@BRANCH]", help="Made where it does not exist.")],
    *,
    bench: Annotated[
        Path | None, typer.Option("--bench", metavar="FILE", help="A result of 'edge-mllm bench', for the card.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A repository that is made now is private.")] = False,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="Of the commit.")] = "Upload a bundle",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the model card and upload nothing.")] = False,
    output: JsonOptions,
) -> None:
    """Upload a bundle with a model card: source, licence, recipe, verification, costs, how to run it."""
    from edge_mllm.errors import SettingError
    from edge_mllm.hub.names import split_id
    from edge_mllm.hub.push import push_files
    from edge_mllm.measure.bench.result import read_result
    from edge_mllm.measure.card import model_card
    from edge_mllm.session.files import open_bundle

    name = split_id(repo)
    if name is None:
        raise SettingError(f"'{repo}' is no name of a repository; it is org/name, or org/name@branch")
    opened = open_bundle(bundle)
    card = model_card(opened.spec, name[0], None if bench is None else read_result(bench))
    if dry_run:
        typer.echo(card, nl=False)
        return
    files: dict[str, Path | bytes] = {"README.md": card.encode()}
    files |= {file: opened.path / file for file in ("bundle.json", *(part.file for part in opened.spec.parts.values()))}
    url = push_files(name[0], files, revision=name[1], private=private, message=message)
    if output.wanted:
        output.write({"repository": name[0], "commit": url, "files": sorted(files)})
        return
    typer.echo(f"{url}\nedge-mllm run -m {repo} -i IMAGE PROMPT")
