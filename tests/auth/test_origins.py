"""Which web pages may call: those of Ollama's own list (OLLAMA_ORIGINS), and nothing that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.auth.origins import Origins, cors_fields, preflight_fields

HOST = b"hub.example:4483"

ALLOWED = [
    b"http://localhost",
    b"https://localhost",
    b"http://localhost:3000",
    b"http://127.0.0.1",
    b"https://127.0.0.1:8443",
    b"http://0.0.0.0:80",
    b"https://0.0.0.0",
    b"app://obsidian.md",
    b"file://",
    b"tauri://localhost",
    b"vscode-webview://1a2b",
    b"vscode-file://vscode-app",
    b"chrome-extension://abcdefgh",
    b"moz-extension://1-2-3",
    b"safari-web-extension://A",
    b"http://hub.example:4483",
    b"https://hub.example:4483",
]
REFUSED = [
    b"http://evil.example",
    b"https://evil.example:4483",
    b"http://localhost.evil.example",
    b"http://evil-localhost",
    b"http://localhost:3000.evil.example",
    b"http://localhost@evil.example",
    b"http://localhost:3000/",
    b"http://127.0.0.1.evil.example",
    b"http://127x0x0x1",
    b"http://hub.example",
    b"http://hub.example:44831",
    b"http://xhub.example:4483",
    b"ftp://localhost",
    b"null",
    b"",
    b"*",
    b"localhost",
    b"http://",
    b"http://localhost\x00",
    b"http://localhost http://evil.example",
    b"http://localh\xc3\xb6st",
    b"http://" + b"a" * 600,
]


@pytest.mark.parametrize("origin", ALLOWED)
def test_local_pages_applications_and_the_hub_s_own_may_call(origin: bytes) -> None:
    assert Origins().allows(origin, HOST)


@pytest.mark.parametrize("origin", REFUSED)
def test_all_others_may_not(origin: bytes) -> None:
    assert not Origins().allows(origin, HOST)


@pytest.mark.parametrize(
    ("setting", "origin", "is_allowed"),
    [
        ("https://chat.example", b"https://chat.example", True),
        (" https://chat.example ", b"https://chat.example", True),
        ("https://chat.example", b"https://chat.example:444", False),
        ("https://chat.example", b"https://chatxexample", False),
        ("https://chat.example", b"https://chat.example.evil", False),
        ("https://chat.example", b"http://chat.example", False),
        ("https://*.example", b"https://a.b.example", True),
        ("https://*.example", b"https://example", False),
        ("http://192.168.*", b"http://192.168.0.1:3000", True),
        ("*", b"https://anything", True),
        ("", b"https://chat.example", False),
        ("https://(a|b)+", b"https://aaa", False),
    ],
)
def test_settings_add_more_with_stars(setting: str, origin: bytes, is_allowed: bool) -> None:
    assert Origins([setting]).allows(origin, HOST) is is_allowed
    assert Origins(["https://other.example", setting]).allows(origin, HOST) is is_allowed
    assert Origins(["https://other.example", setting]).allows(b"https://other.example", HOST)


@pytest.mark.parametrize("origin", [b"null", b"localhost", b"http://", b"x"])
def test_a_request_without_a_host_has_no_page_of_its_own(origin: bytes) -> None:
    assert not Origins().allows(origin, b"")


def test_a_refusal_for_one_host_is_none_for_another() -> None:
    origins = Origins()
    assert not origins.allows(b"http://a.example", b"b.example")
    assert origins.allows(b"http://a.example", b"a.example")
    assert not origins.allows(b"http://a.example", b"b.example")


@given(st.binary(max_size=60), st.binary(max_size=20))
@settings(deadline=None, max_examples=200)
def test_no_origin_that_is_allowed_can_break_a_header(origin: bytes, host: bytes) -> None:
    if Origins(["*"]).allows(origin, host):
        assert cors_fields(origin).count(b"\r\n") == 2
        assert origin.isascii()
        assert not set(origin) & set(b"\r\n\0 ")


def lines(fields: bytes) -> list[bytes]:
    assert fields.endswith(b"\r\n")
    return fields.split(b"\r\n")[:-1]


def test_an_allowed_page_may_read_the_answer() -> None:
    assert lines(cors_fields(b"http://localhost:3000")) == [
        b"Access-Control-Allow-Origin: http://localhost:3000",
        b"Vary: Origin",
    ]


def test_a_preflight_is_answered_as_ollama_does() -> None:
    """71-options-cors.txt, the same in 0.9.3, 0.24.0 and 0.33.0."""
    ours = lines(preflight_fields(b"http://localhost:3000"))
    for line in (
        b"Access-Control-Allow-Origin: http://localhost:3000",
        b"Access-Control-Allow-Methods: GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
        b"Access-Control-Max-Age: 43200",
        b"Vary: Origin",
        b"Vary: Access-Control-Request-Method",
        b"Vary: Access-Control-Request-Headers",
    ):
        assert line in ours
    theirs = (
        b"Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,"
        b"X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
        b"X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,"
        b"X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout"
    ).split(b",")
    (allowed,) = [
        line.partition(b": ")[2].split(b",") for line in ours if line.startswith(b"Access-Control-Allow-Headers")
    ]
    assert set(theirs) <= set(allowed)
    assert b"X-Api-Key" in allowed
