"""How a stream has to end that was broken off."""

from __future__ import annotations

import json

from .wire import Stream


def check_broken_off(path: str, begun: bytes, stream: Stream, *, is_direct: bool) -> None:
    """Check that a begun stream ends with its dialect's own error, and without what marks a good end."""
    rest = begun + b"".join(stream)
    marks = {
        "/v1/chat/completions": b"[DONE]",
        "/v1/completions": b"[DONE]",
        "/v1/messages": b"message_stop",
        "/v1/responses": b"response.completed",
    }
    assert marks.get(path, b'"done":true') not in rest, rest[-600:]
    if is_direct:
        return
    assert stream.is_whole
    if path.startswith("/api/"):
        assert rest.endswith(b"\n")
        last = json.loads(rest.splitlines()[-1])
        assert list(last) == ["error"], rest[-600:]
        assert isinstance(last["error"], str)
        for line in rest.splitlines():
            json.loads(line)
        return
    assert rest.endswith(b"\n\n"), rest[-600:]
    events = [event for event in rest.split(b"\n\n") if event]
    fields = [dict(line.split(b": ", 1) for line in event.split(b"\n")) for event in events]
    data = [json.loads(field[b"data"]) for field in fields]
    if path == "/v1/messages":
        assert fields[-1][b"event"] == b"error", events[-2:]
        assert data[-1]["type"] == "error"
        assert isinstance(data[-1]["error"]["message"], str)
        assert isinstance(data[-1]["error"]["type"], str)
    elif path == "/v1/responses":
        assert fields[-1][b"event"] in (b"error", b"response.failed"), events[-2:]
        assert data[-1]["type"] == fields[-1][b"event"].decode()
    else:
        assert isinstance(data[-1]["error"]["message"], str), events[-2:]
        assert isinstance(data[-1]["error"]["type"], str)
        assert not any(choice["finish_reason"] for chunk in data[:-1] for choice in chunk["choices"])
