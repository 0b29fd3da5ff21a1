"""The default frontend: the settings that hold wherever no other frontend does."""

from __future__ import annotations

from hive.config import Settings
from hive.fleet.health import Patience
from hive.scheduling.frontends import Frontend


def default_frontend(settings: Settings) -> Frontend:
    """Return the frontend that the settings describe. Nothing else reads these settings."""
    return Frontend(
        "default",
        policy=str(settings.policy),
        queue_timeout=settings.queue_timeout,
        patience=Patience(settings.first_byte_timeout, settings.stream_gap_timeout, settings.tools_gap_timeout),
        max_body_bytes=settings.max_body_bytes,
    )
