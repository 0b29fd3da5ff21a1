"""Which proxy the environment names for a hub, and how its answer is read."""

from __future__ import annotations

import pytest

from hive.config import SettingsError
from hive.node.proxies import Proxy, find_proxy, is_excepted, read_answer

HUB = "https://hub.example:8443/prefix"


@pytest.mark.parametrize(
    ("hub", "environ", "proxy"),
    [
        (HUB, {}, None),
        (HUB, {"HTTPS_PROXY": "http://p:3128"}, Proxy("p", 3128)),
        (HUB, {"https_proxy": "p:1", "HTTPS_PROXY": "q:2"}, Proxy("p", 1)),
        (HUB, {"HTTP_PROXY": "http://p:3128"}, None),
        ("http://hub.example", {"HTTP_PROXY": "http://p"}, Proxy("p", 80)),
        ("http://hub.example", {"HTTPS_PROXY": "http://p"}, None),
        (HUB, {"ALL_PROXY": "https://p"}, Proxy("p", 443, True)),
        (HUB, {"HTTPS_PROXY": "http://p", "NO_PROXY": "hub.example"}, None),
        ("https://127.0.0.1:1", {"HTTPS_PROXY": "http://p"}, None),
        ("https://localhost", {"HTTPS_PROXY": "http://p"}, None),
    ],
)
def test_the_environment_names_the_proxy(hub: str, environ: dict[str, str], proxy: Proxy | None) -> None:
    assert find_proxy(hub, environ) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "expected"),
    [
        ("*", True),
        ("hub.example", True),
        ("HUB.Example", True),
        (".example", True),
        ("example", True),
        ("*.example", True),
        ("other, hub.example ", True),
        ("hub.example:8443", True),
        ("hub.example:443", False),
        ("b.example", False),
        ("hub.example.org", False),
        ("", False),
        (",", False),
    ],
)
def test_no_proxy_excepts_by_name(no_proxy: str, expected: bool) -> None:
    assert is_excepted("hub.example", 8443, {"NO_PROXY": no_proxy}) is expected


@pytest.mark.parametrize(
    ("host", "no_proxy", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "[fd00::1]:443", True),
        ("fd00::1", "[fd00::1]:80", False),
    ],
)
def test_no_proxy_excepts_by_address(host: str, no_proxy: str, expected: bool) -> None:
    assert is_excepted(host, 443, {"no_proxy": no_proxy}) is expected


def test_a_tunnel_is_asked_for_with_the_proxys_credentials() -> None:
    proxy = find_proxy(HUB, {"HTTPS_PROXY": "http://u:p%40ss@proxy:3128"})
    assert proxy is not None
    assert proxy.connect("hub.example", 8443) == (
        b"CONNECT hub.example:8443 HTTP/1.1\r\nHost: hub.example:8443\r\nProxy-Authorization: Basic dTpwQHNz\r\n\r\n"
    )
    assert b"[::1]:1 HTTP" in proxy.connect("::1", 1)
    assert "dTpw" not in repr(proxy)


@pytest.mark.parametrize("text", ["socks5://p:1", "http://", "http://p:99999"])
def test_a_proxy_of_another_kind_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="HTTPS_PROXY: expected a URL such as"):
        find_proxy(HUB, {"HTTPS_PROXY": text})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", None),
        (b"HTTP/1.0 200\r\nX: y\r\n\r\n", None),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy wants other credentials (407)"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refuses: 403 Forbidden"),
        (b"SSH-2.0\r\n\r\n", "the proxy does not answer as an HTTP proxy does"),
    ],
)
def test_the_proxys_answer_is_told(answer: bytes, reason: str | None) -> None:
    assert read_answer(answer) == reason
