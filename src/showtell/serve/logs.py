"""The service's log on standard error: lines for people, or a JSON object a line for programs.

A request's line has its number, method, route, status and duration. It never has a path or a file name: they are the clients'.
"""

import json
import logging
import time
from typing import Any, Literal, get_args

LogFormat = Literal["json", "text"]
LOG_FORMATS = get_args(LogFormat)
LOG = logging.getLogger("showtell.serve")
REQUESTS = logging.getLogger("showtell.serve.requests")


def configure(format_: LogFormat | None) -> None:
    """Sends what the service, uvicorn and asyncio report to standard error, and with a format a line for each request."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if format_ == "json" else _Text())
    for name, level in (("showtell.serve", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    REQUESTS.setLevel(logging.INFO if format_ else logging.WARNING)


def log_request(**fields: Any) -> None:
    """One line for a request that was answered."""
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
