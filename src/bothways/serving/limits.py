"""Limits on the size and duration of requests: options of `bothways serve` with their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from bothways.errors import OptionError
from bothways.options import check_options, option

SMALLEST_WINDOW = 32  # tokens; shorter windows split a text into too many


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server process. Raises `OptionError` for a value out of range."""

    max_body_bytes: int = option(4 * 1024 * 1024, "Maximum request body size in bytes.")
    max_texts: int = option(256, "Maximum number of texts in a request.")
    max_characters: int = option(100_000, "Maximum text length in characters.")
    max_labels: int = option(100, "zero-shot: maximum number of candidate labels.")
    max_queue: int = option(1024, "Maximum number of texts waiting for a model; further requests get status 429.")
    max_connections: int = option(1000, "Maximum number of simultaneous connections; further requests get status 503.")
    timeout: float = option(30.0, "Seconds until a waiting or running request is aborted (504).")
    read_timeout: float = option(10.0, "Seconds for a client to send its request (408).")
    stop_timeout: int = option(30, "Seconds for running requests to finish when the server stops.")

    def __post_init__(self) -> None:
        check_options(
            self,
            {
                "max_body_bytes": (1024, 2**31),
                "max_texts": (1, 1_000_000),
                "max_characters": (1, 100_000_000),
                "max_labels": (1, 100_000),
                "max_queue": (1, 10_000_000),
                "max_connections": (1, 1_000_000),
                "timeout": (0.001, 86_400),
                "read_timeout": (0.001, 86_400),
                "stop_timeout": (0, 86_400),
            },
        )
        if 2 * self.max_texts > self.max_queue:
            raise OptionError(
                f"max_texts is {self.max_texts:,} and max_queue {self.max_queue:,}; expected a queue for two such "
                "requests, because one client may fill half of it"
            )
