"""The service's log on standard error: lines for people, or JSON lines for programs.

A request's line has its id, method, route, status and duration. It never has a path or a file name, which are private.
"""

import json
import logging
import time
from typing import Any, Literal

LogFormat = Literal["json", "text"]
LOG = logging.getLogger("showtell.serve")
REQUESTS = logging.getLogger("showtell.serve.requests")


def configure(format_: LogFormat | None) -> None:
    """Sends the logs of the service, uvicorn and asyncio to standard error; with a format, also a line for each request."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if format_ == "json" else _Text())
    for name, level in (("showtell.serve", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    REQUESTS.setLevel(logging.INFO if format_ else logging.WARNING)


def log_request(**fields: Any) -> None:
    """Logs an answered request."""
    REQUESTS.info("request", extra={"fields": fields})


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("showtell: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in fields.items())])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
