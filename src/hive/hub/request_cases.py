"""The use cases of requests: an administrator cancels one."""

from __future__ import annotations

import logging

from hive.errors import CANCELLED, CONFLICT, Fault
from hive.hub.exchange_register import ExchangeRegister, PastExchange
from hive.hub.records import Outcome

_log = logging.getLogger(__name__)


class RequestCases:
    """The changes to running requests that every surface may make."""

    def __init__(self, register: ExchangeRegister) -> None:
        self._register = register

    def cancel(self, request_id: str) -> PastExchange:
        """End a request with an honest error to its client; return what is kept of it.

        Raises `Fault`: not_found, or conflict when the request has ended already.
        """
        exchange = self._register.find(request_id)
        if exchange is not None:
            exchange.give_up(Fault(CANCELLED, "an administrator cancelled this request"))
        past = self._register.find_past(request_id)
        if exchange is None or exchange.record.outcome is not Outcome.CANCELLED:
            raise Fault(CONFLICT, f"request '{request_id}' has ended already")
        _log.info("exchange %s: an administrator cancelled it", request_id)
        return past
