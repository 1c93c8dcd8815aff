"""The command line: its commands, and how they end. What is heavy is imported where it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from octavo import __version__, terminal
from octavo.commands import (
    ask,
    demo,
    doctor,
    evaluate,
    export,
    inspect,
    kernels,
    measure,
    plan,
    profiles,
    report,
    serve,
    simulate,
    studio,
    train,
    train_value,
    validate,
)

app = typer.Typer(
    name="octavo",
    help="Run an ensemble of language models on ONNX Runtime, and know what it costs before you buy GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": terminal.WIDTH},
    rich_markup_mode="markdown",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's error is one message on stderr and its exit code, never a traceback."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="octavo")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        if code in (terminal.INTERRUPTED, terminal.TERMINATED):
            terminal.complain(terminal.INTERRUPTION)
        return code
    except BaseException as error:
        ending = terminal.ending(error)
        if ending is None:
            raise
        terminal.complain(ending[0])
        return ending[1]
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"octavo {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(doctor.doctor)
app.command()(train.train)
app.command("train-value")(train_value.train_value)
app.command()(export.export)
app.command()(inspect.inspect)
app.command()(kernels.kernels)
app.command()(ask.ask)
app.command("eval")(evaluate.evaluate)
app.command()(measure.measure)
app.command()(simulate.simulate)
app.command()(plan.plan)
app.command()(serve.serve)
app.command()(studio.studio)
app.command()(validate.validate)
app.command()(report.report)
app.command()(demo.demo)
app.add_typer(profiles.app, name="profiles")

if __name__ == "__main__":
    sys.exit(main())
