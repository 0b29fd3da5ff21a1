"""Who may do what: keys in their three forms, the local rule, and what an open hub gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hive.auth.access import Door, Guesses, credentials, is_local, is_loopback_host, is_loopback_peer
from hive.auth.key_ring import KeyRing
from hive.auth.keys import Key, Right, Role, digest_of
from hive.errors import Fault
from hive.wire.requests import RequestHead, RequestReader

HERE, THERE = "127.0.0.1", "192.0.2.7"
INFER = frozenset({Right.NONE, Right.INFER})
MANAGE = frozenset({Right.NONE, Right.INFER, Right.MANAGE})


def key(name: str, role: Role, *, manage: bool = False) -> Key:
    return Key(name, role, digest_of(f"hk_{name}".encode()), "hk_", 0.0, manage)


KEYS = [
    key("admin", Role.ADMIN),
    key("worker", Role.WORKER),
    key("client", Role.CLIENT),
    key("manager", Role.CLIENT, manage=True),
    replace(key("revoked", Role.ADMIN), revoked_at=1.0),
]


def head(*lines: str, path: str = "/api/chat", host: str = "localhost:4483", version: str = "1.1") -> RequestHead:
    """The head of a request as the server would read it."""
    reader = RequestReader(32 << 10)
    text = "\r\n".join([f"POST {path} HTTP/{version}", f"Host: {host}", *lines, "", ""])
    reader.feed(text.encode())
    assert reader.head is not None
    return reader.head


def bearer(name: str) -> RequestHead:
    return head(f"Authorization: Bearer hk_{name}", host="hub.example")


def door(local: frozenset[Right] | None = INFER, *, is_open: bool = False) -> Door:
    return Door(KeyRing(KEYS), Guesses(), local, is_open)


def ask(
    door: Door, head: RequestHead, right: Right = Right.INFER, peer: str = THERE, *, locally_open: bool = False
) -> object:
    """The key's name, or the status of the refusal."""
    try:
        return door.admit(head, credentials(head), peer, right, 0.0, locally_open=locally_open).name
    except Fault as fault:
        return fault.kind.status


# --- keys ---

FORMS: dict[str, Callable[[str], RequestHead]] = {
    "bearer": lambda name: head(f"Authorization: Bearer hk_{name}", host="hub.example"),
    "lower case": lambda name: head(f"authorization: bearer hk_{name}", host="hub.example"),
    "spaces": lambda name: head(f"Authorization: Bearer   hk_{name}", host="hub.example"),
    "x-api-key": lambda name: head(f"X-Api-Key: hk_{name}", host="hub.example"),
    "path": lambda name: head(path=f"/k/hk_{name}/api/chat", host="hub.example"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_key_comes_in_three_forms(form: Callable[[str], RequestHead]) -> None:
    assert ask(door(), form("client")) == "client"
    assert ask(door(), form("client"), Right.MANAGE) == 403
    assert ask(door(), form("manager"), Right.MANAGE) == "manager"
    assert ask(door(), form("revoked")) == 401
    assert ask(door(), form("unknown")) == 401


@pytest.mark.parametrize(
    ("name", "rights"),
    [
        ("admin", {Right.NONE, Right.INFER, Right.MANAGE, Right.ADMIN}),
        ("manager", {Right.NONE, Right.INFER, Right.MANAGE}),
        ("client", {Right.NONE, Right.INFER}),
        ("worker", {Right.NONE, Right.WORK}),
    ],
)
def test_a_key_gives_its_rights_and_a_missing_one_is_403(name: str, rights: set[Right]) -> None:
    for right in Right:
        assert ask(door(), bearer(name), right) == (name if right in rights else 403)


def test_without_a_key_or_with_an_unknown_one_it_is_401() -> None:
    for right in Right:
        expected = "" if right is Right.NONE else 401
        assert ask(door(), head(host="hub.example"), right) == expected
        assert ask(door(), bearer("unknown"), right) == expected


def test_other_schemes_are_unknown_keys() -> None:
    for value in ("Basic aGtfYWRtaW46", "Bearer", "Bearer ", "Digest hk_admin", "hk_unknown", ""):
        assert ask(door(), head(f"Authorization: {value}", host="hub.example")) == 401


def test_only_a_client_s_key_may_stand_in_a_path() -> None:
    for name, answer in (
        ("client", "client"),
        ("manager", "manager"),
        ("admin", 403),
        ("worker", 403),
        ("revoked", 401),
    ):
        asked = head(path=f"/k/hk_{name}/api/chat")
        for peer in (HERE, THERE):
            assert ask(door(), asked, Right.NONE, peer) == answer


def test_a_junk_key_of_an_sdk_does_not_hide_the_one_in_the_path() -> None:
    asked = head("Authorization: Bearer ollama", path="/k/hk_client/v1/messages", host="hub.example")
    assert ask(door(), asked) == "client"
    assert credentials(asked) == [b"hk_client", b"ollama"]


def test_a_trailer_is_no_credential() -> None:
    reader = RequestReader(32 << 10)
    body = b"0\r\nAuthorization: Bearer hk_admin\r\nX-Api-Key: hk_admin\r\n\r\n"
    reader.feed(b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert reader.head is not None
    assert credentials(reader.head) == []


def test_refusals_tell_no_secret() -> None:
    for name in ("unknown", "revoked", "worker"):
        for form in FORMS.values():
            with pytest.raises(Fault) as caught:
                door().admit(form(name), credentials(form(name)), THERE, Right.MANAGE, 0.0)
            assert f"hk_{name}" not in str(caught.value)


def test_401_and_403_are_not_to_be_repeated() -> None:
    for name in ("unknown", "worker"):
        with pytest.raises(Fault) as caught:
            door().admit(bearer(name), credentials(bearer(name)), THERE, Right.INFER, 0.0)
        assert not caught.value.kind.retry


# --- the local rule ---


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4483", "127.0.0.1:4483", "127.9.9.9", "[::1]", "[::1]:4483", "a.localhost"]
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_request_from_this_machine_to_this_machine_is_local(host: str, peer: str) -> None:
    assert is_local(head(host=host), peer)
    assert is_loopback_host(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4483",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "hub",
        "192.168.0.1",
        "0.0.0.0",
        "[::]",
        "[fe80::1]",
        "[::ffff:192.0.2.7]",
        "2130706433",
        "127.1",
    ],
)
def test_a_name_that_was_bound_to_this_machine_is_not_local(host: str) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example."""
    assert not is_local(head(host=host), HERE)


@pytest.mark.parametrize(
    "peer", ["192.0.2.7", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "", "nonsense", "128.0.0.1"]
)
def test_a_peer_on_another_machine_is_not_local(peer: str) -> None:
    assert not is_local(head(), peer)
    assert not is_loopback_peer(peer)


@pytest.mark.parametrize(
    "line",
    [
        "Forwarded: for=192.0.2.7",
        "Via: 1.1 proxy",
        "X-Real-IP: 127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Server: a",
        "X-Forwarded-Anything: a",
        "x-forwarded-for:",
    ],
)
def test_what_came_through_a_proxy_is_not_local(line: str) -> None:
    assert not is_local(head(line), HERE)
    assert ask(door(), head(line), peer=HERE) == 401


def test_http_1_0_is_not_local() -> None:
    """nginx speaks it to what stands behind it, unless told otherwise."""
    assert not is_local(head(version="1.0"), HERE)


def test_without_a_host_it_is_not_local() -> None:
    reader = RequestReader(32 << 10)
    reader.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert reader.head is not None
    assert not is_local(reader.head, HERE)


@pytest.mark.parametrize(
    ("local", "given"), [(None, {Right.NONE}), (INFER, INFER), (MANAGE, MANAGE)], ids=["off", "infer", "manage"]
)
def test_the_setting_says_what_a_local_request_may_do(local: frozenset[Right] | None, given: set[Right]) -> None:
    for right in Right:
        expected = "" if right in given else 401
        assert ask(door(local), head(), right, HERE) == expected
        assert ask(door(local), head("Authorization: Bearer ollama"), right, HERE) == expected
        assert ask(door(local), head(), right, THERE) == ("" if right is Right.NONE else 401)


def test_a_key_that_the_hub_knows_counts_locally_too() -> None:
    def local(name: str) -> RequestHead:
        return head(f"Authorization: Bearer hk_{name}")

    for right in Right:
        assert ask(door(MANAGE), local("revoked"), right, HERE) == 401
    assert ask(door(MANAGE), local("worker"), Right.INFER, HERE) == 403
    assert ask(door(MANAGE), local("client"), Right.MANAGE, HERE) == 403
    assert ask(door(INFER), local("admin"), Right.ADMIN, HERE) == "admin"


@pytest.mark.parametrize(("local", "answer"), [(None, 401), (INFER, ""), (MANAGE, "")], ids=["off", "infer", "manage"])
def test_metrics_are_for_admins_or_local(local: frozenset[Right] | None, answer: object) -> None:
    assert ask(door(local), head(), Right.ADMIN, HERE, locally_open=True) == answer
    assert ask(door(local), head(), Right.ADMIN, THERE, locally_open=True) == 401
    assert ask(door(local), head(host="evil.example"), Right.ADMIN, HERE, locally_open=True) == 401
    assert ask(door(local, is_open=True), head(), Right.ADMIN, THERE, locally_open=True) == 401
    assert ask(door(local), bearer("admin"), Right.ADMIN, THERE, locally_open=True) == "admin"


# --- an open hub ---


def test_an_open_hub_gives_inference_to_all_and_nothing_more() -> None:
    for local in (None, INFER):
        hub = door(local, is_open=True)
        for right in Right:
            expected = "" if right in INFER else 401
            assert ask(hub, head(host="hub.example"), right) == expected
            assert ask(hub, bearer("unknown"), right) == expected
        assert ask(hub, head(), Right.MANAGE, HERE) == 401


def test_a_key_that_was_revoked_is_refused_by_an_open_hub_too() -> None:
    assert ask(door(is_open=True), bearer("revoked")) == 401
    assert ask(door(is_open=True), bearer("worker")) == 403
    assert ask(door(is_open=True), bearer("client")) == "client"
