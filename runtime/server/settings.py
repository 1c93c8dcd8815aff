"""What a server may be told: where it listens, whom it lets in, how much it takes on, and how long it waits."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from octavo.profiles.errors import ConfigError


class ServerSettings(BaseModel):
    """Checked when made; raises ConfigError. Times are in seconds, sizes in bytes.

    A query counts as many queued requests as it may ask candidates, and as many queued tokens as these may read and
    write; what the engines compute already counts too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_keys: tuple[str, ...] = Field((), repr=False)
    max_num_queued_reqs: int = Field(512, ge=1)
    max_num_queued_tokens: int = Field(1 << 20, ge=1)
    deadline: float = Field(60.0, gt=0, le=86400)
    drain: float = Field(30.0, ge=0, le=86400)
    read_timeout: float = Field(10.0, gt=0, le=3600)
    keep_alive: float = Field(2.0, gt=0, le=3600)
    max_body: int = Field(1 << 20, ge=1024)
    max_header: int = Field(1 << 14, ge=1024)
    max_candidates: int = Field(64, ge=1)
    max_stops: int = Field(16, ge=0)
    max_messages: int = Field(1024, ge=1)
    trace: Path | None = None
    otel: bool = False
    log_format: Literal["json", "text"] = "json"

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            lines = [f"serve: {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    @model_validator(mode="after")
    def _closed_unless_keyed(self) -> Self:
        if any(len(key) < 8 or not key.isascii() or not key.isprintable() for key in self.api_keys):
            raise ValueError("an API key has at least 8 printable ASCII characters")
        if not self.api_keys and not is_loopback(self.host):
            raise ValueError(f"host {self.host} can be reached by others; give an API key, or listen on 127.0.0.1")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_keys(path: Path | None, variable: str | None = None) -> tuple[str, ...]:
    """API keys from a file with one a line, and from a variable that lists them with commas.

    A key on the command line could be read by everybody on the machine. Raises ConfigError where there is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"serve: {path}: cannot be read as a file of API keys ({type(error).__name__})") from None
    return tuple(key for line in (*lines, *(variable or "").split(",")) if (key := line.strip()))
