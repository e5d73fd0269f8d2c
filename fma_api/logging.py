"""One event a line on standard error, `key=value` for a person or JSON for a machine; Django's and granian's lines too.

Code logs with `structlog.get_logger(__name__).info("round_published", model=3)`. Never weights, tokens or updates.
"""

from typing import Any

import structlog
from structlog.typing import Processor

from fma_api.uncaught import log_uncaught

# The processors of our own events, and of the records of other libraries.
_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(*, level: str, form: str) -> dict[str, Any]:
    """Configure structlog, and give the LOGGING setting that sends the standard library's records the same way.

    form: "console" or "json".
    """
    if form == "json":
        log_uncaught()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "one_line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.add_logger_name],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *(_FOR_MACHINES if form == "json" else _FOR_PEOPLE),
                ],
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "one_line"}},
        "root": {"handlers": ["stderr"], "level": level},
        # These come with handlers of their own, which would write each line twice.
        "loggers": {
            "django": {"handlers": [], "level": level, "propagate": True},
            "django.server": {"handlers": [], "level": level, "propagate": True},
            # Our own line of each request says its status; a stranger's Host header is not worth a traceback besides.
            "django.request": {"handlers": [], "level": "ERROR", "propagate": True},
            "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL", "propagate": True},
            "_granian": {"handlers": [], "level": level, "propagate": True},
            # Four lines for each task say nothing that our own events do not.
            "django-q": {"handlers": [], "level": "WARNING" if level == "INFO" else level, "propagate": True},
        },
    }


def _on_one_line(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["event"] = " ".join(str(event["event"]).split())
    return event


# structlog's own defaults add the local variables to a traceback, credentials among them.
_FOR_MACHINES: tuple[Processor, ...] = (
    structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    structlog.processors.JSONRenderer(default=str),
)
# A person gets the traceback under its line.
_FOR_PEOPLE: tuple[Processor, ...] = (
    _on_one_line,
    structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
)
