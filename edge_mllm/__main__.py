"""``python -m edge_mllm`` is ``edge-mllm``."""

from __future__ import annotations

from edge_mllm.cli.terminal.interrupts import end_at_once_on_interrupt


def main() -> None:
    """Entry point of the console script; nothing heavy is imported before Ctrl-C ends it in one line."""
    end_at_once_on_interrupt()
    from edge_mllm.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
