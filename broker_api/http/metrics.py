"""Every metric of the API, one line of meaning each, in a registry of its own."""

from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True)
class Metrics:
    """Hold the metrics of one application."""

    registry: CollectorRegistry
    #: Requests answered, by method, route template and status.
    requests: Counter
    #: Time to the first byte of an answer.
    seconds: Histogram
    #: Jobs accepted, by task.
    accepted: Counter
    #: Events encoded, each once however many read it.
    encoded: Counter
    #: Announcements that Redis never got; the keeper and the database make up for them.
    dropped: Counter
    #: Readers of event streams at the moment.
    readers: Gauge
    #: Waiting and running jobs, by queue and state; counted every few seconds.
    jobs: Gauge
    #: Workers online, by queue.
    workers: Gauge

    @classmethod
    def make(cls) -> Self:
        """Make them all anew."""
        registry = CollectorRegistry()
        return cls(
            registry=registry,
            requests=Counter(
                "imagefleet_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
            ),
            seconds=Histogram(
                "imagefleet_http_seconds", "Seconds to the first byte.", ("method", "route"), registry=registry
            ),
            accepted=Counter("imagefleet_jobs_accepted", "Jobs accepted.", ("task",), registry=registry),
            encoded=Counter("imagefleet_events_encoded", "Events encoded for readers.", registry=registry),
            dropped=Counter("imagefleet_announcements_dropped", "Announcements Redis never got.", registry=registry),
            readers=Gauge("imagefleet_event_readers", "Readers of event streams.", registry=registry),
            jobs=Gauge("imagefleet_jobs", "Jobs that wait or run.", ("queue", "state"), registry=registry),
            workers=Gauge("imagefleet_workers_online", "Workers online.", ("queue",), registry=registry),
        )

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self.registry)
