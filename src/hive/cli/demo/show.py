"""The requests that the demo sends: one after the other, then many at once, then one whose node breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from hive.cli.demo.machines import CHAT_MODEL, CODE_MODEL, Engines, break_next
from hive.cli.demo.screen import Screen, ScreenRow
from hive.hub.records import Record
from hive.net.reasons import in_words

KEY_NAME = "demo-show"
"""The name of the key of the show's own requests. The show recognises its own records by it."""

_PATHS = {"chat": "/api/chat", "v1_chat": "/v1/chat/completions", "v1_messages": "/v1/messages"}
_PAUSE = 0.3
"""Seconds between two requests. In that time the hub sees which models are loaded."""
_RECORD_TIMEOUT = 2.0
_REQUEST_TIMEOUT = 20.0


class DemoRecords:
    """Passes on the records of the hub: records of the show to their rows, all others to `on_other`."""

    def __init__(self) -> None:
        self.on_other: Callable[[Record], None] = lambda record: None
        self._own: dict[str, asyncio.Future[Record]] = {}

    def write(self, records: Sequence[Record]) -> None:
        """Take the records that the hub has settled."""
        for record in records:
            if record.key != KEY_NAME:
                self.on_other(record)
                continue
            future = self._future(record.request_id)
            if not future.done():
                future.set_result(record)

    async def of(self, request_id: str) -> Record:
        """Return the record of a request of the show. Raises `TimeoutError`."""
        async with asyncio.timeout(_RECORD_TIMEOUT):
            return await self._future(request_id)

    def _future(self, request_id: str) -> asyncio.Future[Record]:
        if request_id not in self._own:
            self._own[request_id] = asyncio.get_running_loop().create_future()
        return self._own[request_id]


class Show:
    """Sends the requests to a hub and shows them. `settle` makes the hub hand over its records at once."""

    def __init__(
        self, client: httpx.AsyncClient, screen: Screen, records: DemoRecords, settle: Callable[[], None]
    ) -> None:
        self._client = client
        self._screen = screen
        self._records = records
        self._settle = settle
        self.rows: list[ScreenRow] = []

    async def play(self, engines: Engines) -> None:
        """Send all requests and print what happens."""
        screen = self._screen
        screen.say("\nThree requests in three dialects, one after the other (times in seconds):")
        screen.headings()
        for operation, model in (("chat", CODE_MODEL), ("v1_chat", CODE_MODEL), ("v1_messages", CHAT_MODEL)):
            await self._send_all([ScreenRow(operation, model)], tokens=12)
            await asyncio.sleep(_PAUSE)
        slots = sum(engine.options.slots for engine in engines.values())
        screen.say(f"\nSix at once, for {slots} slots on three machines:")
        await self._send_all([ScreenRow("v1_chat", CHAT_MODEL) for _ in range(6)], tokens=20)
        screen.say("\nThe next node that is asked breaks its connection in the middle of the answer:")
        await self._play_failover(engines)

    async def _play_failover(self, engines: Engines) -> None:
        names = {engine: name for name, engine in engines.items() if CODE_MODEL in engine.options.models}
        breaking = asyncio.create_task(break_next(list(names)))
        row = ScreenRow("chat", CODE_MODEL)
        try:
            await asyncio.sleep(0)  # the fault is set before the request is sent
            await self._send_all([row], tokens=18, is_stream=False)
            if row.is_ok and row.has_moved and breaking.done():
                broken = names[breaking.result()]
                self._screen.say(
                    f"{broken} broke off; Hive asked {row.node}. The client got one whole answer.",
                    style="bold",
                )
        finally:
            breaking.cancel()

    async def _send_all(self, rows: Sequence[ScreenRow], *, tokens: int, is_stream: bool = True) -> None:
        self.rows += rows
        with self._screen.watching(rows):
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(self._send(row, tokens, is_stream))

    async def _send(self, row: ScreenRow, tokens: int, is_stream: bool) -> None:
        row.started_at = time.monotonic()
        body = _body(row.operation, row.model, tokens, is_stream)
        try:
            async with self._client.stream(
                "POST", _PATHS[row.operation], json=body, timeout=_REQUEST_TIMEOUT
            ) as answer:
                row.node = answer.headers.get("X-Hive-Node", "")
                async for _ in answer.aiter_raw():
                    pass
            self._settle()
            row.record = await self._records.of(answer.headers.get("X-Hive-Request-Id", ""))
        except httpx.HTTPError as error:
            row.error = in_words(error)
        except TimeoutError:
            row.error = "the hub has no record of it"
        self._screen.over(row)


def _body(operation: str, model: str, tokens: int, is_stream: bool) -> Mapping[str, object]:
    message = {"role": "user", "content": "What is a hive?"}
    body: dict[str, object] = {"model": model, "messages": [message], "stream": is_stream}
    if operation == "chat":
        return body | {"options": {"num_predict": tokens}}
    return body | {"max_tokens": tokens}
