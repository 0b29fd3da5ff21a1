"""The simulated engine for synchronous tests. It has its own event loop in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hive.sim.engine import SimulatedEngine
from hive.sim.ledger import SimState
from hive.sim.options import SimOptions

_CALL_TIMEOUT = 10.0

Result = TypeVar("Result")


class ThreadedEngine:
    """The methods of the engine, callable from any thread."""

    def __init__(self, engine: SimulatedEngine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self.options = engine.options
        self.port = engine.port
        self.url = engine.url
        self.control_url = engine.control_url

    def set_fault(
        self,
        kind: str,
        argument: str | float | None = None,
        *,
        count: int | None = None,
        path: str | None = None,
    ) -> None:
        """Set a fault, as `SimulatedEngine.set_fault` does."""
        self._call(lambda: self._engine.set_fault(kind, argument, count=count, path=path))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call(self._engine.clear_faults)

    def state(self) -> SimState:
        """Return counters and the last requests."""
        return self._call(self._engine.state)

    def until(self, is_true: Callable[[SimState], bool], timeout: float = _CALL_TIMEOUT) -> SimState:
        """Wait until the condition holds. The engine's loop evaluates it. Raises `TimeoutError`."""
        return self._run(self._engine.until(is_true), timeout)

    def _call(self, function: Callable[[], Result]) -> Result:
        async def call() -> Result:
            return function()

        return self._run(call(), _CALL_TIMEOUT)

    def _run(self, coroutine: Coroutine[Any, Any, Result], timeout: float) -> Result:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise


@contextmanager
def run_in_thread(
    options: SimOptions | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[ThreadedEngine]:
    """Run an engine while the block runs."""
    loop = asyncio.new_event_loop()
    engine = SimulatedEngine(options, host=host, port=port)
    thread = threading.Thread(target=loop.run_forever, name="simulated engine", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.start(), loop).result(_CALL_TIMEOUT)
        try:
            yield ThreadedEngine(engine, loop)
        finally:
            asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(_CALL_TIMEOUT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
