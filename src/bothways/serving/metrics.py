"""Prometheus metrics at /metrics: requests, times, queues and batches."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOKENS = (16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096)
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one process; with `shared`, a directory, /metrics shows the sum over all processes that use it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, *, shared: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        own = self.registry
        self.requests = Counter(
            "bothways_requests", "Requests by route, model and status.", ("route", "model", "status"), registry=own
        )
        self.seconds = Histogram(
            "bothways_request_seconds",
            "From a request to its answer.",
            ("route", "model"),
            buckets=SECONDS,
            registry=own,
        )
        self.texts = Counter("bothways_texts", "Texts that were computed.", ("model",), registry=own)
        self.tokens = Counter(
            "bothways_tokens", "Tokens that were computed, without padding.", ("model",), registry=own
        )
        self.batch_tokens = Histogram(
            "bothways_batch_tokens", "Tokens in a batch.", ("model",), buckets=TOKENS, registry=own
        )
        self.batch_windows = Histogram(
            "bothways_batch_windows", "Windows in a batch.", ("model",), buckets=WINDOWS, registry=own
        )
        self.rejected = Counter(
            "bothways_rejected", "Requests that were not computed, by reason.", ("model", "reason"), registry=own
        )
        self.in_flight = Gauge(
            "bothways_requests_in_flight",
            "Requests without an answer yet.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self.waiting = Gauge(
            "bothways_queue_texts",
            "Texts that wait or are computed.",
            ("model",),
            multiprocess_mode="livesum",
            registry=own,
        )

    def batch(self, model: str, tokens: int, windows: int) -> None:
        """Record a computed batch."""
        self.batch_tokens.labels(model).observe(tokens)
        self.batch_windows.labels(model).observe(windows)

    def text(self) -> bytes:
        """The metrics in Prometheus text format."""
        registry = self.registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=self._shared)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
