"""What /metrics tells Prometheus: requests, stages, batches, the queue, the decoders, the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.film_jobs import IN_HAND

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Of one engine; in a registry of its own, so that a process may have several."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Counts(engine))
        r = self._registry
        self._requests = Counter("genpercept_requests", "Answered requests.", ("route", "status"), registry=r)
        self._latency = Histogram(
            *("genpercept_request_seconds", "From a request's headers to the last byte of its answer.", ("route",)),
            buckets=_SECONDS,
            registry=r,
        )
        self._stages = Histogram(
            *("genpercept_stage_seconds", "Decoding, waiting for a network, the network, encoding.", ("stage",)),
            buckets=_SECONDS,
            registry=r,
        )
        self._batches = Histogram(
            *("genpercept_batch_images", "Images of a batch."), buckets=(1, 2, 4, 8, 16, 32), registry=r
        )
        for name, about, value in (
            ("queue_requests", "Requests in hand.", lambda: engine.in_hand),
            ("queue_bytes", "Bytes that requests in hand hold.", lambda: engine.bytes),
            ("ready", "1 while requests are taken.", lambda: int(engine.ready)),
            ("films_in_hand", "Films that are sent, wait or run.", lambda: engine.films.count(*IN_HAND)),
            ("films_bytes", "Bytes of films and their results on disk.", lambda: engine.films.bytes),
            ("decoders", "Child processes that decode images.", lambda: len(engine.decoders.processes)),
        ):
            Gauge(f"genpercept_{name}", about, registry=r).set_function(value)
        engine.on_batch = self._batch

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def stages(self, seconds: Mapping[str, float]) -> None:
        for stage, took in seconds.items():
            self._stages.labels(stage).observe(took)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _batch(self, images: int, seconds: float) -> None:
        self._batches.observe(images)


class _Counts(Collector):
    """What the engine counts by itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, about, value in (
            ("predicted", "Images that were predicted.", self._engine.counts.predicted),
            ("departed", "Requests whose clients went away.", self._engine.counts.departed),
            ("failed", "Predictions that failed by a fault of the server.", self._engine.counts.failed),
        ):
            yield CounterMetricFamily(f"genpercept_{name}", about, value=value)
        replaced = CounterMetricFamily("genpercept_decoders_replaced", "Children that were replaced.", labels=["why"])
        for why, count in self._engine.decoders.replaced.items():
            replaced.add_metric([why], count)
        yield replaced
        films = CounterMetricFamily("genpercept_films", "Films that are over.", labels=["state"])
        for state, count in self._engine.films.counts.items():
            films.add_metric([state], count)
        yield films
