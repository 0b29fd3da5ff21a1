"""The routes of the management surface, and the right that each of them needs."""

from __future__ import annotations

import pytest

from hive.auth.keys import Right
from hive.surfaces.management.management_routes import MANAGEMENT_ROUTES


@pytest.mark.parametrize("path", ["/hive/v1/keys", "/hive/v1/keys/name", "/hive/v1/nodes/a/drain", "/hive/v1/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_below_the_prefix_needs_the_right_of_an_administrator(path: str, method: str) -> None:
    assert MANAGEMENT_ROUTES.find(path)[method].right is Right.ADMIN


def test_metrics_need_it_too_but_are_open_to_a_local_request() -> None:
    (metrics,) = MANAGEMENT_ROUTES.find("/metrics").values()
    assert metrics.right is Right.ADMIN
    assert [route.name for route in MANAGEMENT_ROUTES.routes if route.locally_open] == ["metrics"]


def test_joining_needs_the_right_to_work() -> None:
    assert MANAGEMENT_ROUTES.find("/hive/link")["GET"].right is Right.WORK


def test_only_the_health_pages_are_open() -> None:
    open_paths = {route.path for route in MANAGEMENT_ROUTES.routes if route.right is Right.NONE}
    assert open_paths == {"/healthz", "/readyz"}


def test_the_prefix_itself_is_nothing() -> None:
    assert MANAGEMENT_ROUTES.find("/hive/v1/") == {}
