"""The part of the route table about the fleet: models, workers, queues, how it does and what it did."""

from typing import Final

from broker_api.endpoints import Answer, Endpoint
from broker_api.fleet.analytics import CSV, SeriesQuery, SummaryQuery, read_lines, read_summary
from broker_api.fleet.backends import BackendPage, list_backends
from broker_api.fleet.dashboard import ActivityPage, ActivityQuery, Stats, list_activity, read_stats
from broker_api.fleet.lists import QueuePage, list_queues
from broker_api.fleet.system import SystemStatus, system_status
from broker_api.fleet.workers import WorkerDetail, WorkerPage, drain_worker, list_workers, read_worker, resume_worker
from broker_api.refusals import NotFound, Starting
from jobs.cursors import CursorInvalid
from jobs.history.analytics import Series, Summary
from jobs.history.spans import RangeInvalid

_WORKER: Final = Answer(200, "The worker.", WorkerDetail)

FLEET_ENDPOINTS: Final = (
    Endpoint(
        "GET", "/v1/workers", "listWorkers", "List workers", "fleet", list_workers,
        description="Each with what it draws and, in `ledger`, what its engine holds in memory.",
        answers=(Answer(200, "All workers known.", WorkerPage),),
    ),
    Endpoint(
        "GET", "/v1/workers/{name}", "readWorker", "Read a worker", "fleet", read_worker, answers=(_WORKER,), errors=(NotFound,),
    ),
    Endpoint(
        "POST", "/v1/workers/{name}/drain", "drainWorker", "Let a worker take no more jobs", "fleet", drain_worker, access="admin",
        description=(
            "It hears of it within about a second, draws what it has begun and hands the rest back. It stays so, also when it is "
            "started anew, until it is resumed."
        ),
        answers=(_WORKER,), errors=(NotFound,),
    ),
    Endpoint(
        "POST", "/v1/workers/{name}/resume", "resumeWorker", "Let a worker take jobs again", "fleet", resume_worker, access="admin",
        answers=(_WORKER,), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/backends", "listBackends", "What the fleet can draw now", "fleet", list_backends,
        answers=(Answer(200, "The classes of workers that are online.", BackendPage),),
    ),
    Endpoint(
        "GET", "/v1/queues", "listQueues", "List queues", "fleet", list_queues,
        answers=(Answer(200, "All queues.", QueuePage),),
    ),
    Endpoint(
        "GET", "/v1/system/status", "systemStatus", "The fleet in a few numbers", "fleet", system_status,
        description="And each part it stands on: whether it answers, how fast, in which version.",
        answers=(Answer(200, "A few seconds old at most.", SystemStatus),), errors=(Starting,),
    ),
    Endpoint(
        "GET", "/v1/analytics/summary", "readSummary", "Sum up what ended in a stretch of time", "analytics", read_summary,
        description="Up to six hours to the instant, longer ones in whole hours; also of jobs that retention has deleted.",
        query=SummaryQuery, answers=(Answer(200, "The sums.", Summary),), errors=(RangeInvalid,),
    ),
    Endpoint(
        "GET", "/v1/analytics/series", "readSeries", "Read how something went over time", "analytics", read_lines,
        description=(
            "A line for each model, task, worker, state, error or owner, or one for all; at most 500 points. Steps shorter than an hour "
            "tell only of jobs that are still kept. As a table of comma-separated values with `format=csv` or `Accept: text/csv`."
        ),
        query=SeriesQuery, headers={"Accept": "`text/csv` for a table."},
        answers=(Answer(200, "The lines.", Series, also=CSV),), errors=(RangeInvalid,),
    ),
    Endpoint(
        "GET", "/v1/dashboard/stats", "readStats", "How much there is now", "analytics", read_stats,
        answers=(Answer(200, "The numbers.", Stats),), errors=(Starting,),
    ),
    Endpoint(
        "GET", "/v1/dashboard/activity", "listActivity", "What happened lately, newest first", "analytics", list_activity,
        description="Jobs that ended, and workers that came, went, or were sent to rest, each as it last did.",
        query=ActivityQuery, answers=(Answer(200, "A page.", ActivityPage),), errors=(CursorInvalid,),
    ),
)  # fmt: skip
