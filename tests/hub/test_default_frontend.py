"""The settings that the default frontend holds."""

from __future__ import annotations

from hive.config import PolicyName, Settings
from hive.fleet.engines import Engine
from hive.fleet.health import Patience
from hive.hub.default_frontend import default_frontend


def test_it_holds_policy_time_outs_and_the_longest_body() -> None:
    settings = Settings(
        policy=PolicyName.RANDOM,
        queue_timeout=1,
        first_byte_timeout=2,
        stream_gap_timeout=3,
        tools_gap_timeout=4,
        max_body_bytes=5_000,
    )
    frontend = default_frontend(settings)
    assert (frontend.policy, frontend.queue_timeout, frontend.max_body_bytes) == ("random", 1, 5_000)
    assert frontend.patience == Patience(2, 3, 4)


def test_every_engine_may_serve_it() -> None:
    assert default_frontend(Settings()).admits(Engine("any", "http://any"))
