"""Make the Celery application: Redis carries wake-ups, never jobs, so nothing here tries to keep a message alive."""

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection

from infra.redis import keepalive_options

#: Before every key of ours in Redis.
KEY_PREFIX = "imagefleet:"

TRANSPORT: dict[str, Any] = {
    "global_keyprefix": KEY_PREFIX,
    # Without it a publish on a dead connection waits for ever.
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "socket_keepalive_options": keepalive_options(),
    "health_check_interval": 10,
    # Never the way a job is recovered (leases are): far longer than anything runs.
    "visibility_timeout": 3600,
}

SETTINGS: dict[str, Any] = {
    # The lease is in Postgres: a late acknowledgement would only start a job twice.
    "task_acks_late": False,
    "task_ignore_result": True,
    "result_backend": None,
    # Both: one message in work, none held back that an idle worker could take.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "event_serializer": "json",
    # Flower shows nothing without them.
    "worker_send_task_events": True,
    "task_send_sent_event": False,
    # It raises in the threads pool.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_connection_timeout": 5,
    "broker_transport_options": TRANSPORT,
    # Direct queues alone: a queue is its own key, so it works again at once after Redis was wiped.
    "task_default_exchange_type": "direct",
    "task_create_missing_queues": True,
    # A message nobody addressed must not land on a queue that somebody serves.
    "task_default_queue": "imagefleet.unrouted",
    # Publishing is tried once: the keeper sends again what was not sent.
    "task_publish_retry": False,
    # Our own logging stays in charge.
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "enable_utc": True,
    "timezone": "UTC",
}


class PromptConnection(Connection):  # type: ignore[misc] # kombu is taken as untyped
    """Dial a broker that is away every second or two, however long it is away; kombu's own pauses grow to 30 s."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect, trying until it works or the caller's limit is reached."""
        pauses = {"interval_start": 1.0, "interval_step": 0.5, "interval_max": 2.0}
        return super().ensure_connection(*args, **pauses | options)


class PromptMessaging(AMQP):  # type: ignore[misc] # Celery ships no types
    """Make Celery use our connections."""

    Connection = PromptConnection


def make_celery(redis_url: str) -> Celery:
    """Return the application with every setting the fleet relies on; nothing is sent before its first use."""
    application = Celery("imagefleet", broker=redis_url, amqp=PromptMessaging, set_as_current=False, fixups=[])
    application.conf.update(SETTINGS)
    return application


def worker_arguments(name: str, queues: list[str]) -> list[str]:
    """Return the arguments of `application.worker_main` for one worker named `<device>@<host>` on these queues.

    Remote control is answered in the middle of a task only by the threads pool; a worker told no queues would serve
    the default one.
    """
    return [
        "worker",
        "--pool=threads",
        "--concurrency=1",
        f"--hostname={name}",
        f"--queues={','.join(queues)}",
        "--task-events",
        # Neighbours' gossip and revoke lists cost start time and messages, and mean nothing here.
        "--without-gossip",
        "--without-mingle",
    ]
