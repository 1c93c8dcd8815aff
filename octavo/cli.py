"""The command line: one short function per command. What is heavy is imported where it is used."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from octavo import __version__, replays, show, terminal
from octavo.profiles.errors import ConfigError
from octavo.show import Precision

app = typer.Typer(
    name="octavo",
    help="Run an ensemble of language models on ONNX Runtime, and know what it costs before you buy GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": terminal.WIDTH},
    rich_markup_mode="markdown",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write the result to this file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's error is one message on stderr and its exit code, never a traceback."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="octavo")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        if code == terminal.INTERRUPTED:
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


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine has, and which execution providers really create a session.

    Exits with 4 when something found would fail later.
    """
    from octavo.doctor import examine

    findings = list(examine(Path.cwd()))
    if json:
        terminal.dump([{"what": f.what, "status": f.status, "detail": f.detail} for f in findings])
    else:
        terminal.show(terminal.table("", ("", "", ""), [(f.what, f.status, f.detail) for f in findings], left=3))
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(4)


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="The folder for the checkpoints and the task files.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is there already.")] = False,
) -> None:
    """Train the embedded default: a base, eight experts, a value model, and two baselines of equal training.

    All are saved as ordinary Hugging Face checkpoint folders. A stage that is finished is not trained again.
    """
    from octavo.exporters.train import train_ensemble

    with terminal.watching() as watch:
        train_ensemble(out, fresh=fresh, progress=lambda p: watch(p.stage, p.fraction, p.message))
    terminal.say(f"trained in {out}: {', '.join(sorted(path.parent.name for path in out.glob('*/config.json')))}")


@app.command()
def export(
    experts: Annotated[list[Path], typer.Argument(help="Checkpoint folders: config.json and safetensors.")],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    value: Annotated[Path | None, typer.Option(help="A sequence-classification checkpoint with one logit.")] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the folder's by default.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="cpu, cuda or tensorrt; may be given several times.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or int4.")] = "fp32",
    route: Annotated[str, typer.Option(help="native, optimum, or auto.")] = "auto",
    parity_text: Annotated[Path | None, typer.Option(help="Real text for the parity check.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Give the k largest logits instead of all.", min=1)] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also give the last hidden state.")] = False,
    max_length: Annotated[int | None, typer.Option(help="Limit the context to so many tokens.", min=1)] = None,
    lora: Annotated[str, typer.Option(help="PEFT experts: stacked on one base, or merged into it.")] = "stacked",
    base: Annotated[Path | None, typer.Option(help="The base of PEFT experts, where not the one they name.")] = None,
    verify: Annotated[bool, typer.Option(help="Check parity; --no-verify is recorded in the manifest.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    json: Json = False,
) -> None:
    """Export checkpoints to ONNX: one verified bundle, proven equal to the originals.

    Exits with 6, and leaves no bundle, when a model is not equal to its original within its precision's tolerance.
    """
    from octavo.exporters.export import export_bundle

    with terminal.watching() as watch:
        manifest = export_bundle(
            experts,
            out,
            value=value,
            name=name,
            targets=target or ["cpu"],
            precision=show.choice("precision", precision, Precision),
            route=route,
            verify=verify,
            parity_text=parity_text,
            top_k=top_k,
            hidden=hidden,
            max_length=max_length,
            lora=show.choice("lora", lora, Literal["stacked", "merged"]),
            base=base,
            overwrite=overwrite,
            progress=lambda p: watch("export", p.done / max(1, p.total), f"{p.stage} {p.model or ''}".strip()),
        )
    show.manifest(manifest, out, as_json=json)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder.")],
    verify: Annotated[bool, typer.Option(help="Check the sha256 of every file.")] = True,
    json: Json = False,
) -> None:
    """Verify a bundle and print what is in it: sizes, graphs, parity, targets, KV bytes per token."""
    from octavo.profiles.manifest import verify_bundle

    show.manifest(verify_bundle(bundle, hashes=verify), bundle, as_json=json)


Bundle = Annotated[Path, typer.Argument(help="The bundle folder.")]
Provider = Annotated[str | None, typer.Option(help="tensorrt, cuda or cpu; the best that works by default.")]
Fallback = Annotated[bool, typer.Option("--allow-fallback", help="Run on another provider; the result says so.")]


@app.command()
def ask(
    bundle: Bundle,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; or give a task file.")] = None,
    task: Annotated[Path | None, typer.Option(help="Take the prompt from this JSON Lines file.")] = None,
    number: Annotated[int, typer.Option(help="Which prompt of the task file, from 0.", min=0)] = 0,
    policy: Annotated[str | None, typer.Option(help="The bundle's own by default.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.", min=0.0)] = None,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds; then answer with what has arrived.", min=0.0)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    json: Json = False,
) -> None:
    """Ask the ensemble, and see every candidate: expert, text, mean log-probability, value, and which was chosen."""
    from octavo.runtime.local import Octavo

    text = show.prompt_of(prompt, task, number)
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens}
    options = {name: value for name, value in given.items() if value is not None}
    with Octavo.load(bundle, samples=samples, provider=provider, allow_fallback=allow_fallback) as octavo:
        result = octavo.ask(text, policy=policy, seed=seed, deadline=deadline, **options)
    show.answer(result, as_json=json)


@app.command("eval")
def evaluate(
    bundle: Bundle,
    tasks: Annotated[Path, typer.Argument(help="JSON Lines: a prompt each, and a reference or what a verifier needs.")],
    out: Annotated[Path | None, typer.Option(help="A folder for eval.json and the candidates, outcomes.jsonl.")] = None,
    verifier: Annotated[str | None, typer.Option(help="module:function or file.py:function of (prompt, text).")] = None,
    answer: Annotated[str | None, typer.Option(help="A function that finds the label to vote on in a text.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Tasks to choose the best expert on.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="NAME=BUNDLE to compare with; repeatable.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    best_of: Annotated[int, typer.Option(help="Samples of the best expert alone.", min=1)] = 16,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    json: Json = False,
) -> None:
    """Let every policy answer held-out tasks, from one sampling run, and say where the ensemble does not pay.

    Accuracy with 95 % intervals, tokens, measured seconds; candidates are stored for `octavo simulate --outcomes`.
    """
    from octavo.runtime.evaluate import evaluate

    with terminal.watching() as watch:
        found = evaluate(
            bundle,
            tasks,
            verifier=verifier,
            answer=answer,
            validation=validation,
            baselines=dict(show.pair("baseline", text) for text in baseline or []),
            samples=samples,
            best_of=best_of,
            limit=limit,
            seed=seed,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            out=out,
            progress=lambda stage, share: watch(stage, share, ""),
            provider=provider,
            allow_fallback=allow_fallback,
        )
    show.evaluation(found, as_json=json)


@app.command()
def measure(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="A folder for the latency profiles, the trace and measure.json.")],
    prompts: Annotated[Path | None, typer.Option(help="Serve a load of this task file's prompts.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--replay", help="Serve this load, recorded in Mooncake's form.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Queries a second; half of capacity by default.", min=0.0)] = None,
    queries: Annotated[int, typer.Option(help="How many.", min=1)] = 600,
    seconds: Annotated[float, typer.Option(help="How long to time steps.", min=0.1)] = 20.0,
    policy: Annotated[str | None, typer.Option(help="The bundle's own by default.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    json: Json = False,
) -> None:
    """Time this machine's steps over batch and context, then serve a load in real time and record it.

    Writes latency profiles that the simulator reads, and the trace that `octavo simulate --replay` compares with.
    """
    from octavo.runtime.measure import measure
    from octavo.runtime.replay import read_mooncake

    arrivals = read_mooncake(trace, queries=queries) if trace else None
    with terminal.watching() as watch:
        found = measure(
            bundle,
            prompts=prompts,
            arrivals=arrivals,
            rate=rate,
            queries=queries,
            seconds=seconds,
            max_new_tokens=max_new_tokens,
            policy=policy,
            seed=seed,
            out=out,
            progress=lambda stage, share: watch(stage, share, ""),
            provider=provider,
            allow_fallback=allow_fallback,
        )
    show.measurement(found, out, as_json=json)


@app.command()
def simulate(
    scenario: Annotated[str | None, typer.Argument(help="A built-in scenario's name, or a YAML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    replay: Annotated[Path | None, typer.Option(help="What `octavo measure` wrote: simulate its load.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Candidates as `octavo eval` recorded them.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many runs; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries per run.", min=1)] = None,
    baselines: Annotated[bool, typer.Option(help="Simulate the scenario's baselines too.")] = True,
    trace_out: Annotated[Path | None, typer.Option(help="Write the first seed's trace, JSON Lines.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Simulate serving an ensemble: latency, $/query, energy, beside its baselines.

    The scheduler and the policies are the runtime's own; only the seconds of a step are estimated. An overloaded fleet
    is called overloaded. `octavo profiles list scenarios` names the built-in ones.
    """
    if (scenario is None) == (replay is None):
        raise ConfigError("simulate: give either a scenario or --replay FOLDER")
    if replay:
        replays.simulate_replay(replay, out, trace_out, as_json=json)
        return
    from octavo.profiles import load_scenario
    from octavo.simulator.run import simulate, simulate_all

    sets = [*(change or []), *([f"workload.queries={queries}"] if queries else [])]
    sets += [f"outcomes={{kind: records, file: {outcomes.resolve()}}}"] if outcomes else []
    loaded = load_scenario(str(scenario), overrides=sets)
    chosen = list(range(seeds)) if seeds else None
    with terminal.watching() as watch:
        progress = lambda name, share: watch(name, share, "")  # noqa: E731
        if baselines:
            results = simulate_all(loaded, seeds=chosen, progress=progress, trace=trace_out is not None)
        else:
            results = [simulate(loaded, seeds=chosen, progress=progress, trace=trace_out is not None)]
    show.simulation(results, out, trace_out, as_json=json)


@app.command()
def plan(
    scenario: Annotated[str, typer.Argument(help="A built-in scenario's name, or a YAML file.")],
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    what_if: Annotated[
        list[str] | None, typer.Option(help="Plan again with a.b*=0.7, joined by ;. Repeatable.")
    ] = None,
    hardware: Annotated[list[str] | None, typer.Option(help="Only these devices; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many runs decide; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries per run.", min=1)] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; all cores by default.", min=1)] = None,
    emit: Annotated[Path | None, typer.Option(help="Write what deploys and checks the plan to this folder.")] = None,
    image: Annotated[str | None, typer.Option(help="The container image that --emit names.")] = None,
    co2: Annotated[bool, typer.Option("--co2", help="Show the carbon too.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Find the cheapest fleet that carries a scenario's traffic within its targets, and say why not a cheaper one.

    Exits with 3 when no fleet meets the targets; the closest one and what it misses are named.
    """
    from octavo.profiles import load_scenario
    from octavo.simulator.plan import Space, lines
    from octavo.simulator.plan import emit as deploy
    from octavo.simulator.plan import plan as find

    if (emit is None) != (image is None):
        raise ConfigError("plan: --emit and --image go together: manifests name the image that runs the bundle")
    loaded = load_scenario(scenario, overrides=change or [])
    with terminal.watching() as watch:
        found = find(
            loaded,
            space=Space(hardware=tuple(hardware) if hardware else None),
            seeds=list(range(seeds)) if seeds else None,
            queries=queries,
            what_if=what_if or [],
            jobs=jobs,
            progress=lambda stage, share: watch(stage, share, ""),
        )
    if out:
        show.write(out, found.to_json())
    written = deploy(found, emit, image=str(image)) if emit else []
    if json:
        print(found.to_json(), end="")
    else:
        terminal.say("\n".join([*lines(found, co2=co2), *(f"wrote {path}" for path in written)]))


@app.command()
def serve(
    bundle: Bundle,
    host: Annotated[str, typer.Option(help="Another than this machine's own needs API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="One key a line; or set OCTAVO_API_KEYS.")] = None,
    max_num_queued_reqs: Annotated[int, typer.Option(help="Candidates admitted at once.", min=1)] = 512,
    max_num_queued_tokens: Annotated[int, typer.Option(help="Tokens admitted at once.", min=1)] = 1 << 20,
    deadline: Annotated[float, typer.Option(help="Seconds that a query may take.")] = 60.0,
    drain: Annotated[float, typer.Option(help="Seconds to finish what is open at SIGTERM.")] = 30.0,
    trace: Annotated[Path | None, typer.Option(help="Append trace records for `octavo validate`.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    min_candidates: Annotated[int, typer.Option(help="Fewer than these are no answer.", min=1)] = 1,
    provider: Provider = None,
    allow_fallback: Fallback = False,
) -> None:
    """Serve the ensemble as one model behind an OpenAI-compatible endpoint.

    /v1/chat/completions, /v1/completions, /v1/models, /health, /ready, /metrics. Overload is refused with 429.
    """
    from octavo.runtime.server import ServerSettings, read_keys
    from octavo.runtime.server import serve as listen

    settings = ServerSettings(
        host=host,
        port=port,
        api_keys=read_keys(api_key_file, os.environ.get("OCTAVO_API_KEYS")),
        max_num_queued_reqs=max_num_queued_reqs,
        max_num_queued_tokens=max_num_queued_tokens,
        deadline=deadline,
        drain=drain,
        trace=trace,
    )
    load = {"samples": samples, "min_candidates": min_candidates, "provider": provider}
    listen(bundle, settings, allow_fallback=allow_fallback, **load)


@app.command()
def validate(
    measured: Annotated[Path, typer.Argument(help="The trace of a real run, JSON Lines.")],
    simulated: Annotated[Path, typer.Argument(help="The trace of a simulation of the same queries.")],
    gate: Annotated[list[str] | None, typer.Option(help="metric=share, like latency_p50=0.03; repeatable.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Compare two traces of one load: the error of each metric with its 95 % interval.

    Exits with 6 when an error is larger than a --gate allows.
    """
    replays.compare(measured, simulated, gate or [], out, as_json=json)


@app.command()
def report(
    documents: Annotated[list[Path], typer.Argument(help="What eval, measure and simulate wrote with --out.")],
    out: Annotated[Path, typer.Option(help="The HTML file; .json and .md go beside it.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="The report's title.")] = None,
) -> None:
    """Write one offline HTML file: measured quality against simulated cost, and all that stands behind it."""
    from octavo.simulator.report import write_report

    command = shlex.join(["octavo", "report", *map(str, documents), "--out", str(out)])
    files = write_report(documents, out, title=title, command=command)
    terminal.say(f"wrote {files.html}, {files.json} and {files.md}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("octavo-demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was done before.")] = False,
) -> None:
    """The whole claim in ten minutes: train, export, ask, eval, measure, simulate, report.

    Prints each stage's own command as it runs it. Started again, it goes on where it was interrupted.
    """
    from octavo.demo import run_demo, summary

    seconds = run_demo(folder, fresh=fresh)
    terminal.say("\n".join(summary(folder, seconds)))


profiles_app = typer.Typer(help="Facts with their sources: hardware, models, links, prices, workloads, scenarios.")
app.add_typer(profiles_app, name="profiles", no_args_is_help=True)
Kind = Annotated[str, typer.Argument(help="hardware, models, links, prices, workloads or scenarios.")]


@profiles_app.command("list")
def profiles_list(
    kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None, json: Json = False
) -> None:
    """List the profiles there are: built-in ones, and your own, which go before them."""
    from octavo.profiles import list_profiles
    from octavo.profiles.find import KINDS

    found = {each: list_profiles(each) for each in ([kind] if kind else KINDS)}
    if json:
        terminal.dump(found)
        return
    for each, rows in found.items():
        terminal.show(
            terminal.table(each, ("name", "description"), [(row["name"], row["description"]) for row in rows], left=2)
        )


@profiles_app.command("show")
def profiles_show(kind: Kind, name: str, json: Json = False) -> None:
    """Show everything that is known of a profile, in base units, with its sources."""
    import yaml

    from octavo.profiles import show_profile

    data = show_profile(kind, name)
    terminal.dump(data) if json else print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=98), end="")


@profiles_app.command("add")
def profiles_add(
    kind: Kind,
    path: Path,
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of that name.")] = False,
) -> None:
    """Check a profile file and add it to your own folder, where it goes before a built-in one of its name."""
    from octavo.profiles import add_profile

    terminal.say(f"added {add_profile(kind, path, replace=replace)}")


@profiles_app.command("check")
def profiles_check(kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None) -> None:
    """Check that every profile loads and every number has a source; exits with 2 when not."""
    from octavo.profiles import check_profiles

    problems = check_profiles(kind)
    for line in problems:
        terminal.complain(line)
    if problems:
        raise typer.Exit(2)
    terminal.say("every profile loads, and every number has a source")


@profiles_app.command("schema")
def profiles_schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from octavo.profiles import scenario_schema

    terminal.dump(scenario_schema())


if __name__ == "__main__":
    sys.exit(main())
