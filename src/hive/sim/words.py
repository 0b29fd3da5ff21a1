"""What the engine says: words and vectors that depend on seed, model and prompt only."""

from __future__ import annotations

import hashlib
import math
import random
import zlib
from dataclasses import dataclass

import msgspec

_COMMON = """
about above after air along also always animals any around because before below best between both by
came children city could day does down earth end every example eyes far feet few first five food found
four gateway give good great group hand head help here house just keep kind land large last learn left
light line live long machine make many men might mother name never new night now often old once one
other own part people place point read right room same school sea second sentence set should small some
sound still story stream study sun thing think three through time today token together took toward tree
turn two under until use water way well white whole why without word work world write year young
"""
_VOCABULARY = tuple(_COMMON.split())
_FOREIGN = ("Grüße", "Köln —", "naïve", "世界", "ответ", "αβγ", "🌍", "👩‍🔬", "한국어", "½ €")
_RING_SIZE = 1024
EMBEDDING_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Word:
    """One token: its text, and the same text as JSON."""

    text: str
    json: bytes


def make_word(text: str) -> Word:
    """Return the token of this text."""
    return Word(text, msgspec.json.encode(text))


class Vocabulary:
    """A ring of words that depends on the seed. Each answer reads it from a place that depends on its prompt."""

    def __init__(self, seed: int) -> None:
        chooser = random.Random(seed)  # noqa: S311 - words, not secrets
        foreign = (chooser.choice(_FOREIGN) if chooser.random() < 0.1 else None for _ in range(_RING_SIZE))
        self._ring = [make_word(" " + (other or chooser.choice(_VOCABULARY))) for other in foreign]
        self._seed = seed

    def sentence(self, model: str, prompt: bytes, length: int) -> list[Word]:
        """Return `length` tokens: the same tokens for the same seed, model and prompt."""
        start = zlib.crc32(prompt, zlib.crc32(model.encode(), self._seed & 0xFFFFFFFF)) % _RING_SIZE
        turns = 1 + (start + length) // _RING_SIZE
        return (self._ring * turns)[start : start + length] if turns > 1 else self._ring[start : start + length]


def embedding(text: str, dimensions: int | None = None) -> list[float]:
    """Return a unit vector that depends only on the text."""
    chooser = random.Random(hashlib.sha256(text.encode()).digest())  # noqa: S311 - a vector, not a secret
    values = [chooser.gauss(0.0, 1.0) for _ in range(min(dimensions or EMBEDDING_LENGTH, EMBEDDING_LENGTH))]
    length = math.hypot(*values)
    return [round(value / length, 8) for value in values]


def count_tokens(text: bytes) -> int:
    """Return a prompt's length in tokens: four bytes are a token."""
    return 1 + len(text) // 4
