"""Who is let in, and what a server refuses to be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.server.settings import ServerSettings, is_loopback, read_keys

KEYS = ("first-key-of-two", "second-key-of-two")
PATHS = (
    "/docs",
    "/redoc",
    "/v1/chat/completions",
    "/v1/completions",
    "/health/",
    "//health",
    "/v1/models",
    "/v1/models/octavo",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/nothing",
    "/",
    "/health/x",
)


def test_every_path_but_health_needs_a_key(serve: Any) -> None:
    with serve(api_keys=KEYS) as up:
        assert httpx.get(up.url + "/health").status_code == 200
        for path in PATHS:
            refused = httpx.get(up.url + path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key"), path
            assert refused.headers["www-authenticate"] == "Bearer"
        for sent in ("", "Bearer", "Bearer first-key-of-tw", f"Basic {KEYS[0]}", "Bearer \xe9", KEYS[0]):
            assert httpx.get(up.url + "/ready", headers={"authorization": sent.encode("latin-1")}).status_code == 401
        for key in KEYS:
            assert httpx.get(up.url + "/ready", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_every_key_is_compared_in_constant_time_whichever_is_sent(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.runtime.server import guard

    compared: list[tuple[bytes, bytes]] = []
    right = guard.hmac.compare_digest

    def compare(sent: bytes, key: bytes) -> bool:
        compared.append((sent, key))
        return right(sent, key)

    with serve(api_keys=KEYS) as up, monkeypatch.context() as patch:
        patch.setattr(guard.hmac, "compare_digest", compare)
        for sent in (*KEYS, "wrong"):
            httpx.get(up.url + "/ready", headers={"authorization": f"Bearer {sent}"})
    assert compared == [(sent.encode(), key.encode()) for sent in (*KEYS, "wrong") for key in KEYS]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect", "/favicon.ico", "/v2/health/live"])
def test_there_is_nothing_to_click_on(server: Any, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 404


def test_with_a_key_any_host_name_will_do(serve: Any) -> None:
    with serve(api_keys=KEYS) as up:
        headers = {"authorization": f"Bearer {KEYS[1]}", "host": "octavo.example"}
        assert httpx.get(up.url + "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_nothing_public_is_opened_without_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, api_keys=KEYS).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert ServerSettings(host=host).api_keys == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"deadline": 0},
        {"deadline": float("nan")},
        {"deadline": float("inf")},
        {"max_num_queued_reqs": 0},
        {"api_keys": ("short",)},
        {"api_keys": ("with\nnewline",)},
        {"colour": "red"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if "api_keys" not in wrong else "API key"):
        ServerSettings(**wrong)


def test_keys_are_not_shown() -> None:
    assert KEYS[0] not in repr(ServerSettings(api_keys=KEYS))


def test_keys_come_from_a_file_and_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEYS[0]}\n\n  {KEYS[1]}  \n")
    assert read_keys(file) == KEYS
    assert read_keys(file, "third-key, ") == (*KEYS, "third-key")
    assert read_keys(None) == ()
    with pytest.raises(ConfigError, match="nowhere"):
        read_keys(tmp_path / "nowhere")
