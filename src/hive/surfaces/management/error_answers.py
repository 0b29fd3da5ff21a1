"""The errors of the management API: all have one shape and the hub's own words, never the wrong value itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from hive.errors import BAD_JSON, BAD_REQUEST, INTERNAL, INVALID_VALUE, METHOD_NOT_ALLOWED, NOT_FOUND, Fault
from hive.store.store_error import StoreError

_log = logging.getLogger(__name__)

_FACTS = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "enum": "expected {expected}",
    "string_type": "expected a text",
    "string_too_long": "expected at most {max_length} characters",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "model_attributes_type": "expected a JSON object",
}
"""What is wrong with a value, by pydantic's name for it."""
_OTHER_FACT = "does not fit"


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """A stable code for programs and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The one shape of every error."""

    error: ErrorDetail


async def refuse_unknown(request: Request) -> None:
    """Raise `Fault` for a parameter that the route does not take: a misspelt filter would let everything through."""
    route = request.scope.get("route")
    assert isinstance(route, APIRoute)
    known = {field.alias for field in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Fault(BAD_REQUEST, f"there is no parameter '{name}' here")


def answer_errors(app: FastAPI) -> None:
    """Have an application answer every error as an ErrorAnswer."""

    @app.exception_handler(Fault)
    async def fault(_: Request, error: Fault) -> Response:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> Response:
        return _answer(_fault_of(request, error))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == METHOD_NOT_ALLOWED.status:
            allowed = (("Allow", ", ".join(_methods(app, request))),)
            return _answer(Fault(METHOD_NOT_ALLOWED, f"{request.method} is not allowed here", allowed))
        if error.status_code == NOT_FOUND.status:
            return _answer(Fault(NOT_FOUND, "there is nothing at this path"))
        return _answer(Fault(BAD_JSON, "the body cannot be read as JSON"))

    @app.exception_handler(StoreError)
    async def store(_: Request, error: StoreError) -> Response:
        _log.error("the database failed", exc_info=error)
        return _answer(Fault(INTERNAL, "the hub's database failed; its log says how"))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return _answer(Fault(INTERNAL, "the hub failed; its log says how"))


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Return every method of the path; Starlette's own Allow names only those of its first route."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(method for route in here for method in route.methods or ())


def _fault_of(request: Request, error: RequestValidationError) -> Fault:
    """Return a fault that names the first thing that does not fit, never its value."""
    first = error.errors()[0]
    # An integer is the index of a repeated parameter.
    where = [str(part) for part in first["loc"][1:] if not isinstance(part, int)]
    if first["type"] == "json_invalid":
        return Fault(BAD_JSON, "the body is not JSON")
    if not where and "json" not in request.headers.get("content-type", ""):
        return Fault(INVALID_VALUE, "content-type: expected application/json")
    fact = _FACTS.get(first["type"], _OTHER_FACT).format_map(first.get("ctx", {}))
    return Fault(INVALID_VALUE, f"{'.'.join(where) or 'body'}: {fact}")


def _answer(fault: Fault) -> Response:
    headers = dict(fault.headers)
    if not fault.kind.retry:
        headers["x-should-retry"] = "false"
    content = {"error": {"code": fault.kind.code, "message": fault.message}}
    return JSONResponse(content, status_code=fault.kind.status, headers=headers)
