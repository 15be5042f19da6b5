"""Admit a request, store it as a job, announce it, and wait for its end: the one way in, whatever the door."""

from dataclasses import dataclass, replace
from uuid import UUID

from broker_api.admission.admission import Admission
from broker_api.admission.prompt_lengths import refuse_long_prompts
from broker_api.admission.snapshots import Snapshot
from broker_api.auth.keys import Principal
from broker_api.pictures.sources import Pictures
from broker_api.services import Services
from broker_api.streaming.watching import HangUp, fingerprint
from jobs import watches
from jobs.changes import Change
from jobs.contract import JobRequest
from jobs.errors import AdapterUnknown, HardwareUnknown, ModelUnknown, PreprocessorUnknown, TooLargeForFleet
from jobs.intake import Accepted, NewJob, submit
from jobs.pictures import upload_ref, with_pictures


@dataclass(frozen=True)
class Admitted:
    """A job that can be done, not yet stored, and the pictures that came with it."""

    new: NewJob
    pictures: Pictures


@dataclass(frozen=True)
class Submitted:
    """A stored job; `change` is None when an earlier request had made it."""

    job: UUID
    new: NewJob
    change: Change | None


async def admit(
    services: Services, caller: Principal, request: JobRequest, *, idempotency_key: str | None = None
) -> Admitted:
    """Return the job to store, storing nothing; raise a `RequestRefused` that names the field at fault."""
    pictures = await services.pictures.take(caller.owner, request)
    return Admitted(await decide(services, caller, request, pictures, idempotency_key=idempotency_key), pictures)


async def decide(
    services: Services,
    caller: Principal,
    request: JobRequest,
    pictures: Pictures,
    *,
    idempotency_key: str | None = None,
) -> NewJob:
    """Return the job to store of a request whose pictures have been looked at; raise a `RequestRefused`."""
    named = with_pictures(request, lambda place, _: upload_ref(pictures.by_field[place].sha256))

    def admitted(snapshot: Snapshot) -> NewJob:
        admission = Admission(snapshot.catalogue.seen_by(caller.reader), snapshot.fleet, services.settings.max_pixels)
        new = admission.admit(named, owner=caller.owner, pictures=pictures.by_field, idempotency_key=idempotency_key)
        return replace(new, retention_days=caller.retention_days)

    snapshot = services.snapshots.now
    try:
        new = admitted(snapshot)
    except (ModelUnknown, AdapterUnknown, PreprocessorUnknown, HardwareUnknown, TooLargeForFleet):
        # It may be newer than the snapshot.
        snapshot = await services.snapshots.refresh()
        new = admitted(snapshot)
    await refuse_long_prompts(services.vocabularies, new.parameters, snapshot.catalogue)
    return new


async def store(services: Services, admitted: Admitted) -> Submitted:
    """Store an admitted job, its pictures first, and announce it."""
    new = admitted.new
    # Only what is admitted is kept.
    await services.pictures.keep(new.owner, admitted.pictures)
    async with services.pool.connection() as connection:
        accepted = await submit(connection, new)
    return _announced(services, new, accepted)


async def store_watched(
    services: Services, caller: Principal, admitted: Admitted, *, door: str, hang_up: HangUp, again: bool = False
) -> Submitted:
    """Store a job whose caller will wait for it, or join the one that this caller's same request left behind a moment ago.

    `again` says that the caller has sent this request before, so that it joins also where its leaving is not known yet.
    """
    watching, new = services.watching, admitted.new
    mark = fingerprint(door, caller.key_id, new.request_hash)
    # Of those who wait for their turn in the database, one of each process is enough to hold a connection.
    async with watching.turn(mark):
        await services.pictures.keep(new.owner, admitted.pictures)
        async with services.pool.connection() as connection, connection.transaction():
            if new.idempotency_key is None:
                await watches.take_turn(connection, mark)
                left_behind = await watching.join(connection, caller.owner, mark, again=again)
                if left_behind is not None:
                    return Submitted(left_behind, new, None)
            accepted = await submit(connection, new)
            await watching.begin(connection, accepted.job, mark, hang_up)
    return _announced(services, new, accepted)


def _announced(services: Services, new: NewJob, accepted: Accepted) -> Submitted:
    if accepted.change is not None:
        services.relay.announce(accepted.change)
        services.metrics.accepted.labels(new.parameters.task).inc()
    return Submitted(accepted.job, new, accepted.change)
