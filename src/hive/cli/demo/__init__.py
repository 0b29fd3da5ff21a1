"""`hive demo`: a hub with three simulated nodes, a few requests to watch, and commands to try next."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from hive.cli.flags import whole_option


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the requests.")] = False,
    port: Annotated[
        int | None,
        whole_option(
            "--port", "The hub's port. [default: 4483, or a free one]", least=0, most=65_535, show_default=False
        ),
    ] = None,
) -> int:
    """Show a hub at work, then keep it running until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the event loop handles both signals
    try:
        from hive.cli.demo.run import run

        return run(port, once=once)
    except KeyboardInterrupt:
        return 0
