"""`octavo profiles`: facts with their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import terminal
from octavo.options import Json

app = typer.Typer(
    help="Facts with their sources: hardware, models, links, prices, workloads, scenarios, measured latency.",
    no_args_is_help=True,
)
Kind = Annotated[str, typer.Argument(help="hardware, models, links, prices, workloads, scenarios or latency.")]


@app.command("list")
def _list(kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None, json: Json = False) -> None:
    """List the profiles there are: built-in ones, and your own, which go before them."""
    from octavo.profiles import list_profiles
    from octavo.profiles.find import KINDS, MEASURED

    found = {each: list_profiles(each) for each in ([kind] if kind else (*KINDS, MEASURED))}
    if json:
        terminal.dump(found)
        return
    for each, rows in found.items():
        terminal.show(
            terminal.table(each, ("name", "description"), [(row["name"], row["description"]) for row in rows], left=2)
        )


@app.command("show")
def _show(kind: Kind, name: str, json: Json = False) -> None:
    """Show everything that is known of a profile, in base units, with its sources."""
    import yaml

    from octavo.profiles import show_profile

    data = show_profile(kind, name)
    terminal.dump(data) if json else print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=98), end="")


@app.command("add")
def _add(
    kind: Kind,
    path: Path,
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of that name.")] = False,
) -> None:
    """Check a profile file and add it to your own folder, where it goes before a built-in one of its name."""
    from octavo.profiles import add_profile

    terminal.say(f"added {add_profile(kind, path, replace=replace)}")


@app.command("check")
def _check(kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None) -> None:
    """Check that every profile loads and every number has a source; exits with 2 when not.

    Prices that were looked up more than a year ago are named.
    """
    from octavo.profiles import check_profiles
    from octavo.profiles.age import old_prices

    problems = check_profiles(kind)
    for line in problems:
        terminal.complain(line)
    if problems:
        raise typer.Exit(2)
    terminal.say("every profile loads, and every number has a source")
    for line in old_prices(kind):
        terminal.note(line)


@app.command("schema")
def _schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from octavo.profiles import scenario_schema

    terminal.dump(scenario_schema())
