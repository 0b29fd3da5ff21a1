"""Words and vectors."""

from __future__ import annotations

import json
import math

from hive.sim.words import Vocabulary, embedding


def text(seed: int, prompt: bytes, length: int = 50) -> str:
    return "".join(word.text for word in Vocabulary(seed).sentence("m:latest", prompt, length))


def test_the_same_seed_and_prompt_give_the_same_words() -> None:
    assert text(1, b"a") == text(1, b"a")
    assert text(1, b"a") != text(2, b"a")
    assert text(1, b"a") != text(1, b"b")


def test_a_sentence_is_as_long_as_asked_beyond_the_ring() -> None:
    assert [len(Vocabulary(0).sentence("m", b"", n)) for n in (0, 1, 5000)] == [0, 1, 5000]


def test_some_words_take_several_bytes_and_each_is_valid_json() -> None:
    words = Vocabulary(0).sentence("m", b"", 1024)
    assert any(len(word.text.encode()) > len(word.text) for word in words)
    assert all(json.loads(word.json) == word.text for word in words)


def test_vectors_have_length_one_and_depend_on_the_text() -> None:
    assert math.isclose(math.hypot(*embedding("a")), 1.0, abs_tol=1e-6)
    assert embedding("a") == embedding("a") != embedding("b")
    assert len(embedding("a", 3)) == 3
