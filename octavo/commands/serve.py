"""`octavo serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from octavo.options import Bundle, Fallback, Provider


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
