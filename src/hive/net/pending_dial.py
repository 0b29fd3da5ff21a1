"""A connection that is being dialed. The caller gets the connection, or the reason why not, by a callback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from hive.errors import INTERNAL, NODE_UNREACHABLE, Fault
from hive.net.link import Connection

_log = logging.getLogger(__name__)

C = TypeVar("C", bound=Connection)


class PendingDial(Generic[C]):
    """One dial under way. It calls `then` or `otherwise` once. After `cancel` it calls neither."""

    __slots__ = ("_task",)

    def __init__(
        self,
        dial: Callable[[], Coroutine[Any, Any, C]],
        then: Callable[[C], None],
        otherwise: Callable[[Fault], None],
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(_run(dial, then, otherwise))

    def cancel(self) -> None:
        """Stop dialing. The interrupted dial itself closes a connection that has opened in this very moment."""
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
        # No await before this line: a cancellation cannot come in between.
        try:
            then(connection)
        except Exception:
            _log.exception("sending on a connection that was just dialed")
            connection.cancel()
            otherwise(Fault(INTERNAL, "the request could not be sent"))
