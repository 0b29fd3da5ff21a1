"""The table of errors: whose fault each is, what the client may do, and that no two are taken for one another."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from hive import errors
from hive.errors import Family, Fault, Kind

KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, Kind)}


def test_codes_are_stable_words_and_each_names_one_kind() -> None:
    assert {name: kind.code for name, kind in KINDS.items()} == {name: name.lower() for name in KINDS}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_the_status_tells_whose_fault_it_is(kind: Kind) -> None:
    HTTPStatus(kind.status)
    if kind.family is Family.CLIENT:
        assert 400 <= kind.status < 500 or kind is errors.HTTP_VERSION
    else:
        assert 500 <= kind.status < 600


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_another_node_may_be_tried_for_a_node_s_fault_only(kind: Kind) -> None:
    assert kind.another_node is (kind.family is Family.NODE)


def test_what_was_refused_for_want_of_rights_is_not_to_be_repeated() -> None:
    """Claude Code repeats for three minutes otherwise."""
    hopeless = {kind.code for kind in KINDS.values() if not kind.retry}
    assert {"unauthenticated", "forbidden", "origin_refused"} <= hopeless
    assert all(kind.retry for kind in KINDS.values() if kind.status in (408, 429, 503))


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("BAD_JSON", 400),
        ("REPEATED_KEY", 400),
        ("UNAUTHENTICATED", 401),
        ("FORBIDDEN", 403),
        ("MODEL_NOT_FOUND", 404),
        ("METHOD_NOT_ALLOWED", 405),
        ("BODY_TOO_LARGE", 413),
        ("UNSUPPORTED_ENCODING", 415),
        ("UPGRADE_REQUIRED", 426),
        ("HEAD_TOO_LARGE", 431),
        ("NOT_YET", 501),
        ("QUEUE_FULL", 503),
        ("QUEUE_TIMEOUT", 503),
        ("BODY_MEMORY_FULL", 503),
    ],
)
def test_the_design_s_statuses(name: str, status: int) -> None:
    assert KINDS[name].status == status


def test_a_fault_shows_its_code_and_its_sentence() -> None:
    fault = Fault(errors.QUEUE_FULL, "the queue is full", (("Retry-After", "5"),))
    assert str(fault) == "queue_full: the queue is full"
    assert (fault.kind, fault.message, fault.delay) == (errors.QUEUE_FULL, "the queue is full", 0.0)
    assert isinstance(fault, Exception)


def test_a_fault_can_be_raised_and_caught_and_chained() -> None:
    with pytest.raises(Fault) as caught:
        raise Fault(errors.NODE_SILENT, "the node 'a' is silent") from TimeoutError()
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert caught.value.headers == ()


def test_kinds_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        errors.FORBIDDEN.status = 200  # type: ignore[misc]
