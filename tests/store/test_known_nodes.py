"""A stored node is read as it was written, within bounds; an unreadable one is an error with a reason."""

from __future__ import annotations

import zlib

import pytest

from hive.store import known_nodes
from hive.store.known_nodes import Profile, fitting, pack, unpack
from hive.wire.link_messages import ReportedEngine, json_object

from ..joining import an_engine


def names(*engines: ReportedEngine) -> list[str]:
    return [engine.id for engine in fitting(engines)]


def test_a_profile_comes_back_as_it_was() -> None:
    vllm = ReportedEngine("vllm", "vllm", slots=32, v1_models=json_object(b'{"data":[{"id":"big"}]}'))
    profile = Profile("hive 0.1.0", "Linux", {"room": "lab \u2082"}, (an_engine(), vllm))
    assert unpack(pack(profile)) == profile
    assert unpack(pack(Profile())) == Profile()


def test_a_newer_profile_is_read_as_far_as_it_is_known() -> None:
    assert unpack(zlib.compress(b'{"agent":"hive 9","rack":7}')) == Profile("hive 9")


@pytest.mark.parametrize(
    "packed", [b"", b"not packed", zlib.compress(b"[]"), zlib.compress(b'{"engines":[{}]}'), pack(Profile("x"))[:-9]]
)
def test_an_unreadable_profile_is_an_error_with_a_reason(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack(packed)


def test_a_profile_that_unpacks_to_more_than_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        unpack(zlib.compress(b'{"agent":"' + b"x" * (20 << 20) + b'"}'))


def test_the_lists_of_all_engines_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def listing(size: int) -> object:
        return json_object(b'{"x":"%b"}' % (b"x" * (size - 8)))

    engines = an_engine("a", tags=listing(40), ps=listing(20)), an_engine("b", tags=listing(60)), an_engine("c")
    monkeypatch.setattr(known_nodes, "MAX_LISTS_BYTES", 110)
    assert names(*engines[:2]) == ["a"]
    small = an_engine("d", tags=listing(20), ps=listing(10), v1_models=listing(10))
    assert names(*engines, small) == ["a", "d"], "one for which there is no room does not keep the next ones out"
