"""How a table of routes is searched."""

from __future__ import annotations

from hive.dialects.routes import Answered, Route, RouteTable
from hive.dialects.tasks import Dialect


def route(method: str, path: str, *, takes_head: bool = False) -> Route:
    return Route("r", method, path, Dialect.HIVE, Answered.SURFACE, takes_head=takes_head)


def test_a_path_is_found_whole_and_gives_its_methods() -> None:
    get, post = route("GET", "/a"), route("POST", "/a")
    table = RouteTable([get, post])
    assert table.find("/a") == {"GET": get, "POST": post}
    assert all(table.find(path) == {} for path in ("/", "/a/", "/a/b", "/A", ""))


def test_the_root_is_a_path_like_any_other() -> None:
    root = route("GET", "/", takes_head=True)
    table = RouteTable([root])
    assert table.find("/") == {"GET": root, "HEAD": root}
    assert table.find("/a") == {}


def test_a_path_that_ends_in_a_slash_owns_all_below_it_but_not_itself() -> None:
    below = route("GET", "/blobs/")
    table = RouteTable([below])
    assert table.find("/blobs/a") == table.find("/blobs/a/b") == {"GET": below}
    assert table.find("/blobs/") == table.find("/blobs") == {}


def test_a_part_in_braces_stands_for_any_one_part() -> None:
    drain = route("POST", "/nodes/{name}/drain")
    table = RouteTable([drain])
    assert table.find("/nodes/a.b/drain") == {"POST": drain}
    assert all(table.find(path) == {} for path in ("/nodes//drain", "/nodes/a/b/drain", "/nodes/a/drain/", "/nodes/a"))


def test_what_the_owner_of_a_path_answers_it_answers_there_too_unless_a_route_is_more_exact() -> None:
    get, drain = route("GET", "/v1/keys"), route("POST", "/v1/nodes/{name}")
    any_get, any_post = route("GET", "/v1/"), route("POST", "/v1/")
    table = RouteTable([get, drain, any_get, any_post])
    assert table.find("/v1/keys") == {"GET": get, "POST": any_post}
    assert table.find("/v1/nodes/a") == {"GET": any_get, "POST": drain}
    assert table.find("/v1/other") == {"GET": any_get, "POST": any_post}


def test_an_alias_is_a_further_path_of_a_route() -> None:
    chat = route("POST", "/api/chat")
    assert RouteTable([chat], aliases={"/chat": chat}).find("/chat") == {"POST": chat}
