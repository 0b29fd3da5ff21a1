"""The part of the management API that tells what happens in the hub as it happens: server-sent events.

A client that comes back names the last event that it has read, and goes on after it. Its library does that by itself
(`Last-Event-ID`). If the hub has not kept all later events, or has started anew, the first event is `gap`: the client
must read its lists again. A block that has only an id moves the client's position and is no event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hive.errors import INVALID_VALUE, Fault
from hive.hub.event_feed import EventFeed, News
from hive.hub.event_log import Gap, Position
from hive.hub.events import Event, EventKind
from hive.hub.key_cases import Keys

QUIET = 15.0
"""Seconds without an event after which a comment shows that the stream lives."""
MAX_POSITION = 64
"""The most characters of a position."""


_DATA_IS_AN_OBJECT = {"responses": {"200": {"content": {"text/event-stream": {"schema": {"type": "object"}}}}}}
"""Without this, FastAPI describes every answer that is not JSON as a text."""


@dataclass(frozen=True, slots=True)
class EventView:
    """The data of an event."""

    time: str
    """RFC 3339."""
    epoch: str
    """It changes with each start of the hub."""
    number: int
    """Rises by one from event to event; 1 is the start of the hub."""
    kind: EventKind
    subject: str
    """The thing to which the event happened."""
    details: Mapping[str, object]
    """The details of an event of this kind."""


class EventStream(StreamingResponse):
    """An answer that goes on until its client leaves, its key ends or the hub stops."""

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        """`status_code` stands here because FastAPI reads its default for the description of the route."""
        super().__init__(blocks, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, and close its source however it ends."""
        async with aclosing(self._blocks):
            await super().__call__(scope, receive, send)


def serve_events(app: FastAPI, prefix: str, feed: EventFeed, keys: Keys) -> None:
    """Give an application the route of events."""

    @app.get(
        f"{prefix}/events",
        response_class=EventStream,
        responses={200: {"model": EventView, "description": "Events as they happen; the schema is that of their data"}},
        openapi_extra=_DATA_IS_AN_OBJECT,
    )
    async def events(
        request: Request,
        kind: Annotated[list[EventKind] | None, Query()] = None,
        after: Annotated[str | None, Query(max_length=MAX_POSITION)] = None,
        last_event_id: Annotated[str | None, Header(max_length=MAX_POSITION)] = None,
    ) -> EventStream:
        """Send events as they happen, from now on, or after the one that `after` or `Last-Event-ID` names."""
        feed.check_room()
        key = request.scope["hive"]["principal"].key

        def follow(position: Position) -> AsyncGenerator[News | Gap, None]:
            return feed.follow(position, frozenset(kind or EventKind), QUIET, lambda: keys.is_live(key))

        if last_event_id:  # a client that comes back repeats its query, but the header is newer
            return EventStream(_blocks(follow(_position("last-event-id", last_event_id)), b": events\n\n"))
        if after is not None:
            return EventStream(_blocks(follow(_position("after", after)), b": events\n\n"))
        return EventStream(_blocks(follow(feed.log.position), _place(feed.log.position)))


def _position(name: str, text: str) -> Position:
    """Return the position that a client sent. Fault: INVALID_VALUE."""
    position = Position.read(text)
    if position is None:
        raise Fault(INVALID_VALUE, f"{name}: expected EPOCH-NUMBER, as in the id of an event")
    return position


async def _blocks(follower: AsyncGenerator[News | Gap, None], first: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the stream in whole blocks; the first one at once, so that the client sees the answer begin."""
    async with aclosing(follower) as news:
        yield first
        async for each in news:
            if isinstance(each, Gap):
                yield _gap_block(each)
            elif each.events:
                yield b"".join([_event_block(event) for event in each.events])
            else:
                yield _place(each.position)


def _place(position: Position) -> bytes:
    """Return a comment with the new position of a client: events of other kinds may have come."""
    return b": events\nid: %b\n\n" % str(position).encode()


def _event_block(event: Event) -> bytes:
    data = msgspec.json.encode(event)
    return b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (event.epoch.encode(), event.number, event.kind.encode(), data)


def _gap_block(gap: Gap) -> bytes:
    data = msgspec.json.encode({"asked": str(gap.asked), "resume": str(gap.resume)})
    return b"id: %b\nevent: gap\ndata: %b\n\n" % (str(gap.resume).encode(), data)
