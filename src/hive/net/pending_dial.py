"""A connection that is being dialed, for those that live by callbacks: it comes, or the reason why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from hive.errors import NODE_UNREACHABLE, Fault

_log = logging.getLogger(__name__)

C = TypeVar("C")


class PendingDial(Generic[C]):
    """One dial under way. It calls `then` or `otherwise`, once; after `cancel` neither of them."""

    __slots__ = ("_task",)

    def __init__(
        self,
        dial: Callable[[], Coroutine[Any, Any, C]],
        then: Callable[[C], None],
        otherwise: Callable[[Fault], None],
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(_run(dial, then, otherwise))

    def cancel(self) -> None:
        """Dial no longer. What was dialed in this very moment is closed by the dial itself, which is interrupted."""
        self._task.cancel()


async def _run(
    dial: Callable[[], Coroutine[Any, Any, C]], then: Callable[[C], None], otherwise: Callable[[Fault], None]
) -> None:
    try:
        connection = await dial()
    except Fault as fault:
        otherwise(fault)
    except Exception as error:
        _log.exception("dialing an engine")
        otherwise(Fault(NODE_UNREACHABLE, str(error) or type(error).__name__))
    else:
        then(connection)  # without an await in between: no cancellation can fall here
