"""A frontend admits its own nodes."""

from __future__ import annotations

from hive.fleet.engines import Engine
from hive.scheduling.frontends import Frontend


def test_a_frontend_admits_the_nodes_that_it_names() -> None:
    frontend = Frontend("course", nodes=frozenset({"a"}))
    assert frontend.admits(Engine("a", "http://a"))
    assert not frontend.admits(Engine("b", "http://b"))


def test_a_frontend_that_names_no_nodes_admits_all() -> None:
    assert Frontend().admits(Engine("b", "http://b"))
