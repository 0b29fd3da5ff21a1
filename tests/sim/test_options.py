"""What an engine can be told, and what it cannot."""

from __future__ import annotations

import math

import pytest

from hive import OLLAMA_API_VERSION
from hive.sim.options import OptionError, SimKind, SimOptions


@pytest.mark.parametrize("name", ["slots", "max_loaded", "default_tokens", "context_length"])
def test_what_must_be_positive_is_named_when_it_is_not(name: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}: expected at least 1, got 0$"):
        SimOptions(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["max_queue", "load_time", "ttft", "tokens_per_second", "remember"])
def test_what_may_be_nothing_is_named_when_it_is_less_or_no_number(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"^{name}: expected 0 or more, got "):
        SimOptions(**{name: value})  # type: ignore[arg-type]


def test_an_engine_has_a_model() -> None:
    with pytest.raises(OptionError, match="expected at least one name"):
        SimOptions(models=())


def test_a_model_has_a_name_that_can_be_one() -> None:
    with pytest.raises(OptionError, match="'bad name' is no model name"):
        SimOptions(models=("tiny", "bad name"))


def test_an_engine_shows_the_version_of_its_kind_unless_told() -> None:
    assert SimOptions().shown_version == OLLAMA_API_VERSION
    assert SimOptions(kind=SimKind.VLLM).shown_version == "0.11.0"
    assert SimOptions(version="0.9.3").shown_version == "0.9.3"


@pytest.mark.parametrize(("pace", "interval"), [(0, 0.0), (50, 0.02)])
def test_a_pace_of_nothing_is_no_pause(pace: float, interval: float) -> None:
    assert SimOptions(tokens_per_second=pace).token_interval == interval
