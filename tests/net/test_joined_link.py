"""The pool of a node's data sockets, without sockets: what it asks of its node, and when."""

from __future__ import annotations

import asyncio

from hive.net.joined_link import ASK_AGAIN_SECONDS, JoinedLink, JoinedPool


def test_a_node_that_dials_too_few_is_asked_again() -> None:
    async def main() -> None:
        pool, asked = JoinedPool("desk", 1.0, lambda _: None), list[int]()
        now = asyncio.get_running_loop().time()
        pool.open(asked.append)
        pool.tick(now + ASK_AGAIN_SECONDS - 1)
        assert asked == []
        pool.tick(now + ASK_AGAIN_SECONDS + 1)
        assert asked == [pool.want]

    asyncio.run(main())


def test_the_late_end_of_an_old_link_takes_no_slots_from_the_new_one() -> None:
    """An engine that left and came back has another link, and the old one is closed some seconds later."""

    async def main() -> None:
        pool = JoinedPool("desk", 1.0, lambda _: None)
        old, new = JoinedLink(pool, "ollama"), JoinedLink(pool, "ollama")
        old.expect(32)
        new.expect(32)
        old.close()
        assert pool.limit == 36

    asyncio.run(main())
