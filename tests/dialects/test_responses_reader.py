"""The text in the events of a response."""

from __future__ import annotations

from hive.dialects.responses_reader import ResponsesReader

TEXT = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n'
CALL = b'data: {"type":"response.function_call_arguments.delta","delta":"{"}\n\n'
DONE = b'data: {"type":"response.completed"}\n\n'


def test_the_deltas_are_output_text_and_no_arguments_of_calls() -> None:
    assert ResponsesReader(500).deltas(TEXT + CALL + DONE) == ["a"]
