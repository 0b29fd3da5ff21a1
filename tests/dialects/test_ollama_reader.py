"""Lines of Ollama's API: what each feed returns, and the text in them."""

from __future__ import annotations

import pytest

from hive.dialects.ollama_reader import OllamaReader
from hive.dialects.unit_reader import Ending, MalformedStream

TOKEN = b'{"model":"m","response":"a","done":false}\n'
CHAT = b'{"model":"m","message":{"role":"assistant","content":"b"},"done":false}\n'
DONE = b'{"model":"m","response":"","done":true}\n'
ERROR = b'{"error":"boom"}\n'


def test_one_plain_line_passes_as_it_is() -> None:
    reader = OllamaReader(100)
    for line, ending in [(TOKEN, Ending.MISSING), (DONE, Ending.WHOLE), (ERROR, Ending.ERROR)]:
        assert reader.feed(line) is line
        assert (reader.ending, reader.last_units) == (ending, line)


@pytest.mark.parametrize("line", [b'{"response":"\xff","done":true}\n', b'{"response":"\\ud800","done":true}\n'])
def test_a_line_that_only_lenient_readers_take_passes_too(line: bytes) -> None:
    reader = OllamaReader(100)
    assert reader.feed(line) == line
    assert reader.is_whole


def test_a_line_in_pieces_passes_when_it_is_whole() -> None:
    reader = OllamaReader(100)
    assert reader.feed(TOKEN[:9]) == reader.feed(TOKEN[9:-1]) == b""
    assert reader.feed(TOKEN[-1:] + DONE[:5]) == TOKEN
    assert not reader.is_whole
    assert reader.feed(DONE[5:]) == DONE
    assert reader.is_whole


def test_no_line_passes_with_a_malformed_one_in_the_same_piece() -> None:
    with pytest.raises(MalformedStream):
        OllamaReader(100).feed(TOKEN + b"nonsense\n")


def test_deltas_are_the_text_of_generate_and_of_chat() -> None:
    reader = OllamaReader(100)
    assert reader.deltas(TOKEN + CHAT + DONE) == ["a", "b"]
    assert reader.deltas(ERROR + b'{"response":5}\nnonsense\n') == []
