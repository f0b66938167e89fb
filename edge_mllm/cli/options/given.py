"""What was typed: options that a command cannot use are refused, instead of being ignored."""

from __future__ import annotations

from collections.abc import Collection

import typer


def refuse_unused(context: typer.Context, used: Collection[str], who: str) -> None:
    """Refuse every option that was typed and is not used.

    Args:
        context: Of the command.
        used: Names of the parameters that are used.
        who: What does not use them, as the subject of the message.

    Raises:
        SettingError: An unused option was typed.
    """
    from edge_mllm.errors import SettingError

    typed = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in used
        and parameter.param_type_name == "option"
        and _was_typed(context, parameter.name)
    ]
    if typed:
        raise SettingError(f"{who} does not use {', '.join(typed)}")


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
