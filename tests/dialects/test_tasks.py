"""The tasks of engines and their routes: a closed list."""

from __future__ import annotations

from hive.dialects.tasks import CHAT, COUNT_TOKENS, ENGINE_ROUTES, SHOW, Dialect


def test_a_task_and_a_dialect_have_one_route_and_no_two_of_them_share_it() -> None:
    routes = [(route.method, route.path) for route in ENGINE_ROUTES.values()]
    assert len(routes) == len(set(routes))
    assert all(path.startswith("/") and "?" not in path for _, path in routes)


def test_one_task_has_a_route_in_each_dialect_that_knows_it() -> None:
    chats = {dialect: route.path for (task, dialect), route in ENGINE_ROUTES.items() if task is CHAT}
    assert chats == {
        Dialect.OLLAMA: "/api/chat",
        Dialect.OPENAI: "/v1/chat/completions",
        Dialect.RESPONSES: "/v1/responses",
        Dialect.ANTHROPIC: "/v1/messages",
    }


def test_a_task_that_computes_nothing_takes_no_slot() -> None:
    assert not SHOW.takes_slot
    assert not COUNT_TOKENS.takes_slot
    assert CHAT.takes_slot


def test_names_of_tasks_are_unique() -> None:
    tasks = {task for task, _ in ENGINE_ROUTES}
    assert len({task.name for task in tasks}) == len(tasks)
