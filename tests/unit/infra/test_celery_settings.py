"""The settings that keep a message from ever being more than a wake-up."""

import pytest

from infra.celery_app import KEY_PREFIX, PromptConnection, make_celery, worker_arguments


def test_messages_are_wake_ups_and_nothing_more() -> None:
    """Early acknowledgement, no results, JSON alone, one message at a time, no end to reconnecting."""
    conf = make_celery("redis://:secret@127.0.0.1:1/0").conf
    assert conf.task_acks_late is False
    assert conf.task_ignore_result is True
    assert conf.result_backend is None
    assert (conf.worker_prefetch_multiplier, conf.worker_disable_prefetch) == (1, True)
    assert (conf.task_serializer, conf.accept_content, conf.event_serializer) == ("json", ["json"], "json")
    assert conf.worker_send_task_events is True
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.broker_connection_retry_on_startup is True
    assert conf.broker_connection_max_retries is None
    assert conf.task_default_exchange_type == "direct"
    assert conf.broker_transport_options["global_keyprefix"] == KEY_PREFIX
    for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval"):
        assert conf.broker_transport_options[name]


def test_no_result_backend_is_built() -> None:
    """The application has nowhere to put results."""
    application = make_celery("redis://:secret@127.0.0.1:1/0")
    assert type(application.backend).__name__ == "DisabledBackend"


def test_worker_is_started_with_its_queues_and_the_pool_that_answers() -> None:
    """Threads, one task, explicit queues, events, no gossip."""
    arguments = worker_arguments("cpu0@host", ["txt2img.cpu", "tag-a"])
    assert arguments[0] == "worker"
    assert set(arguments[1:]) == {
        "--pool=threads",
        "--concurrency=1",
        "--hostname=cpu0@host",
        "--queues=txt2img.cpu,tag-a",
        "--task-events",
        "--without-gossip",
        "--without-mingle",
    }


def test_broker_that_is_away_is_dialled_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an outage lasted, workers are back within two seconds of its end."""
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)
    pauses: list[float] = []
    application = make_celery("redis://127.0.0.1:9/0")
    with application.connection_for_read() as connection:
        assert isinstance(connection, PromptConnection)
        with pytest.raises(connection.connection_errors):
            connection.ensure_connection(lambda _, pause: pauses.append(pause), 6, reraise_as_library_errors=False)
    assert pauses == [1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
