"""`octavo serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from octavo import show
from octavo.options import Bundle, CudaGraphs, Devices, Fallback, Kernels, Prepack, Provider, Threads, several
from octavo.profiles.errors import ConfigError


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
    log_format: Annotated[str, typer.Option(help="json or text, on stderr.")] = "json",
    otel: Annotated[bool, typer.Option("--otel", help="Send OpenTelemetry spans where OTEL_... says.")] = False,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    min_candidates: Annotated[int, typer.Option(help="Fewer than these are no answer.", min=1)] = 1,
    on: Annotated[str, typer.Option(help="local, or ray: over a cluster's nodes.")] = "local",
    plan: Annotated[Path | None, typer.Option(help="On Ray: place the models as this scenario does.")] = None,
    branches: Annotated[int | None, typer.Option(help="On Ray: deal the models out over so many.", min=1)] = None,
    ray_address: Annotated[str | None, typer.Option(help="On Ray: the cluster; one of this machine's own.")] = None,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    devices: Devices = None,
    threads: Threads = None,
    prepack: Prepack = False,
    kernels: Kernels = None,
    cuda_graphs: CudaGraphs = False,
) -> None:
    """Serve the ensemble as one model behind an OpenAI-compatible endpoint.

    /v1/chat/completions, /v1/completions, /v1/models, /health, /ready, /metrics. Overload is refused with 429.

    On Ray each branch holds some of the models, and the bundle's folder must be at the same path on every node.
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
        otel=otel,
        log_format=show.choice("log-format", log_format, Literal["json", "text"]),
    )
    asked: dict[str, object] = {"provider": provider, "devices": several(devices), "threads": threads}
    placed = {name: value for name, value in asked.items() if value is not None}
    placed |= {"allow_fallback": allow_fallback, "prepack": prepack, "cuda_graphs": cuda_graphs, "kernels": kernels}
    if show.choice("on", on, Literal["local", "ray"]) == "ray":
        from octavo.runtime.cluster.deploy import ClusterSettings, serve_on_ray
        from octavo.runtime.cluster.layout import branches_for

        cluster = ClusterSettings(
            bundle=bundle.resolve(),
            branches=branches_for(bundle, plan, branches),
            server=settings,
            samples=samples,
            min_candidates=min_candidates,
            placement=placed,
        )
        serve_on_ray(cluster, ray_address)
        return
    if plan or branches or ray_address:
        raise ConfigError("serve: --plan, --branches and --ray-address go with --on ray")
    listen(bundle, settings, samples=samples, min_candidates=min_candidates, **placed)
