"""`hive sim`: a simulated engine on a port, with its options and their defaults."""

from __future__ import annotations

from typing import Annotated

import typer

from hive.cli.flags import number_option, whole_option

_Models = Annotated[list[str] | None, typer.Option("--model", help="A model it has; repeat for more. [default: tiny]")]
_Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="KIND[:ARG]", help="A fault from the start; see --list-faults."),
]


def sim(
    port: Annotated[int, whole_option("--port", "0 lets the system choose.")] = 11435,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model: _Models = None,
    kind: Annotated[str, typer.Option(help="What it passes for: ollama, llama.cpp, vllm or openai.")] = "ollama",
    version: Annotated[str, typer.Option(help="The version it shows. [default: by kind]")] = "",
    slots: Annotated[int, whole_option("--slots", "Requests that a loaded model answers at a time.")] = 1,
    max_loaded: Annotated[int, whole_option("--max-loaded", "Models that stay in memory together.")] = 3,
    max_queue: Annotated[int, whole_option("--max-queue", "Requests that wait inside before 503 busy.")] = 512,
    load_time: Annotated[float, number_option("--load-time", "Seconds that a load takes.")] = 0.0,
    ttft: Annotated[float, number_option("--ttft", "Seconds to the first token.")] = 0.0,
    tokens_per_second: Annotated[
        float, number_option("--tokens-per-second", "Of each stream; 0 is without pause.")
    ] = 0.0,
    tool_call: Annotated[
        str, typer.Option(metavar="NAME[:JSON]", help="The call it answers requests with tools with.")
    ] = "",
    fault: _Faults = None,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="Show the faults and end.")] = False,
    seed: Annotated[int, whole_option("--seed", "Fixes the words.")] = 0,
) -> None:
    """Run a simulated inference engine: to try Hive without a GPU, and to see how Hive handles faults."""
    from hive.sim import program
    from hive.sim.options import DEFAULT_MODELS, OptionError, SimOptions

    if list_faults:
        typer.echo(program.fault_table())
        return
    faults = fault or []
    try:
        program.check_faults(faults)
        options = SimOptions(
            models=tuple(model) if model else DEFAULT_MODELS,
            kind=program.read_kind(kind),
            version=version,
            slots=slots,
            max_loaded=max_loaded,
            max_queue=max_queue,
            load_time=load_time,
            ttft=ttft,
            tokens_per_second=tokens_per_second,
            tool_call=program.read_tool_call(tool_call),
            seed=seed,
        )
    except OptionError as error:
        typer.echo(f"hive sim: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(program.serve(options, host, port, faults))
