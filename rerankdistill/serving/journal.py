"""Logs as JSON, one object a line."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """A record as JSON: when, how grave, what, and the fields that came with it. Of an exception its kind and where it
    was raised, not its message, which may quote a text."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "about", {})
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = "".join(traceback.format_tb(record.exc_info[2]))
        return json.dumps(line, ensure_ascii=False)


def config(level: str = "INFO") -> dict[str, Any]:
    """What ``logging.config.dictConfig`` is told: everything to stderr as JSON, and no access log of uvicorn's, which
    would write query strings out."""
    quiet = {"handlers": [], "propagate": False, "level": "CRITICAL"}
    loud = {"handlers": ["stderr"], "propagate": False, "level": level}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonLines.__name__}"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"uvicorn": loud, "uvicorn.error": loud, "uvicorn.access": quiet, "rerankdistill.serving": loud},
    }
