"""Logs: short lines on stderr for people, JSON lines in a rotating file for machines."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
from structlog.typing import EventDict, WrappedLogger

from flockchain.files import disk_faults
from flockchain.node.config import LogConfig


class LogFile(RotatingFileHandler):
    """A full disk takes lines from the file, not from the console, and is said once instead of at every line."""

    is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        if not self.is_told:
            self.is_told = True
            print(f"flockchain: {self.baseFilename} takes no lines: {sys.exc_info()[1]}", file=sys.stderr)


def configure_logs(folder: Path, config: LogConfig) -> None:
    """Send structlog and the standard library's logging to both places; raises `Fault`."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = LogFile(folder / "node.log", maxBytes=config.max_bytes, backupCount=config.files)
    file.setFormatter(_formatter(structlog.processors.JSONRenderer(), shared))
    console = logging.StreamHandler()
    console.setFormatter(_formatter(_render_short, shared))
    console.setLevel(max(logging.INFO, logging.getLevelName(config.level.upper())))
    root = logging.getLogger()
    root.handlers = [file, console]
    root.setLevel(config.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _formatter(
    renderer: structlog.typing.Processor, shared: list[structlog.typing.Processor]
) -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
    )


def _render_short(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """``12:00:01 info   block height=5 txs=1``"""
    clock, level, what = str(event.pop("timestamp"))[11:19], event.pop("level"), event.pop("event")
    event.pop("logger", None)
    trace = event.pop("exception", None)
    facts = " ".join(f"{key}={value}" for key, value in event.items())
    line = f"{clock} {level:<7} {what} {facts}".rstrip()
    return f"{line}\n{trace}" if trace else line
