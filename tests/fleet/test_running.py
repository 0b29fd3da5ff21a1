"""What an engine does now."""

from __future__ import annotations

from hive.fleet.running import Running


def test_loads_of_models_that_left_the_memory_are_forgotten() -> None:
    running = Running(loaded_as={"m": "", "n": "num_ctx=8192"})
    running.keep_loaded({"n", "o"})
    assert running.loaded_as == {"n": "num_ctx=8192"}


def test_two_engines_share_nothing() -> None:
    first, second = Running(), Running()
    first.of_model["m"] = 1
    assert second.of_model == {}
