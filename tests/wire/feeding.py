"""The common part of the tests of the two HTTP readers: messages cut into pieces, and the result of a reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import strategies as st

from hive.errors import Fault
from hive.wire.requests import RequestHead, RequestReader
from hive.wire.responses import GarbledAnswer, ResponseHead, ResponseReader

MAX_HEAD_BYTES = 32 << 10


@dataclass(frozen=True)
class ReadRequest:
    """The result of a reader after the last piece. `status` is that of the refusal, or 0."""

    head: RequestHead | None
    body: bytes
    is_complete: bool
    has_excess: bool
    status: int = 0
    message: str = ""

    def same(self) -> object:
        """Return all but the sentence of a refusal, which may be more or less exact."""
        return self.status or (self.head, self.body, self.is_complete, self.has_excess)


def read_request(pieces: Iterable[bytes], max_head_bytes: int = MAX_HEAD_BYTES) -> ReadRequest:
    """Feed pieces to a new reader until it refuses."""
    reader = RequestReader(max_head_bytes)
    try:
        for piece in pieces:
            reader.feed(piece)
    except Fault as fault:
        return ReadRequest(None, b"", False, False, fault.kind.status, str(fault))
    return ReadRequest(reader.head, reader.take_body(), reader.is_complete, reader.has_excess)


@dataclass(frozen=True)
class ReadAnswer:
    """The result of a reader of an engine's answer after the last piece."""

    head: ResponseHead | None
    body: bytes
    is_complete: bool
    can_be_reused: bool
    is_garbled: bool = False

    def same(self) -> object:
        """Return all of it, or only the fact that the answer is garbled."""
        return self.is_garbled or (self.head, self.body, self.is_complete, self.can_be_reused)


def read_answer(
    pieces: Iterable[bytes], *, then_closed: bool = False, max_head_bytes: int = MAX_HEAD_BYTES
) -> ReadAnswer:
    """Feed pieces to a new reader as the answer to one request."""
    reader = ResponseReader(max_head_bytes)
    reader.begin()
    body = b""
    try:
        for piece in pieces:
            body += reader.feed(piece)
        if then_closed:
            reader.end_of_connection()
    except GarbledAnswer:
        return ReadAnswer(None, body, False, False, is_garbled=True)
    return ReadAnswer(reader.head, body, reader.is_complete, reader.can_be_reused)


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the data cut at these places, without empty pieces."""
    bounds = [0, *sorted(places), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
    return [piece for piece in pieces if piece]


def one_by_one(data: bytes) -> list[bytes]:
    """Return the data as single bytes."""
    return [bytes([byte]) for byte in data]


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Return a strategy for all ways to cut these bytes."""
    places = st.lists(st.integers(0, len(data)), max_size=8)
    return st.one_of(places.map(lambda each: cut_at(data, each)), st.just(one_by_one(data)))


TELLING = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b"-1", b"0", b"f" * 17]


@st.composite
def mutations(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """Return a message with some bytes replaced, dropped, doubled or moved."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        other = draw(st.integers(0, len(data)))
        data[start:end] = draw(
            st.one_of(
                st.just(bytes(data[start:end]).swapcase()),
                st.binary(max_size=4),
                st.sampled_from(TELLING),
                st.just(bytes(data[other : other + 20])),
            )
        )
    return bytes(data)
