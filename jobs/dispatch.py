"""Wake workers: commit first, then send only while the queue holds fewer messages than it has workers.

A message that has not been taken yet is followed by a claim that sees everything committed before, so leaving one out loses nothing; ten
thousand jobs then cost a handful of messages. What Redis loses, the keeper sends again.
"""

from typing import Final

import celery
import redis

WAKE_TASK: Final = "imagefleet.wake"


def wake(application: "celery.Celery", client: "redis.Redis", queue: str, workers: int) -> bool:
    """Send one wake-up to a queue unless enough are waiting there; return whether one was sent.

    Raises what redis-py and kombu raise when Redis is away.
    """
    prefix = (application.conf.broker_transport_options or {}).get("global_keyprefix", "")
    if int(client.llen(f"{prefix}{queue}")) >= max(1, workers):
        return False
    application.send_task(WAKE_TASK, args=[queue], queue=queue, ignore_result=True, retry=False)
    return True
