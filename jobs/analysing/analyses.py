"""Ask the fleet about its own models, and record what it finds: jobs that draw nothing, claimed last and fenced like any other.

What is found is kept by content: a file, a text. `analyses` says what was asked of which entry, so that a change is noticed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic_core import to_json

from infra.advisory_locks import ANALYSES
from jobs.analysing.findings import Findings, text_digest
from jobs.changes import PRESENT_COLUMNS, Change
from jobs.contract import AnalyseParameters, Subject
from jobs.errors import TooLargeForFleet
from jobs.fleet import Fleet
from jobs.intake import Accepted, NewJob, submit
from jobs.memory import memory_of
from jobs.needs import main_need, needs_of
from jobs.routing import route
from jobs.store import MINE, change_once
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.likeness.texts import text_of

#: Whose jobs these are: no key can be made for an owner without a name, so that only administrators see what they say of entries.
OWNER: Final = ""
TASK: Final = "analyse"
#: People's jobs come first; what somebody waits for, before most of them.
LAST: Final = 9
AWAITED: Final = 2
#: Texts one job reads.
TEXTS_PER_JOB: Final = 32
#: What was asked and not found is asked again after so long, seconds.
PATIENCE_SECONDS: Final = 3600

AnalysisSource = Literal["weights", "text"]
Models = Mapping[ModelRef, ModelEntry]

_COMPLETE: Final = f"""
with ended as (
    update jobs set state = 'succeeded', state_seq = %(seq)s, lease_until = null, step = steps, seconds = %(seconds)s,
        finished_at = clock_timestamp()
    where {MINE} returning {PRESENT_COLUMNS}
), signed as (
    insert into likeness_signatures (fingerprint, norm, layers, sketch)
    select found.fingerprint, found.norm, found.layers, found.sketch from ended cross join jsonb_to_recordset(%(signatures)s::jsonb)
        found (fingerprint text, norm float8, layers int, sketch real[])
    on conflict (fingerprint) do nothing
), compared as (
    insert into likeness_comparisons (one, other, cosine, layers)
    select found.one, found.other, found.cosine, found.layers from ended cross join jsonb_to_recordset(%(comparisons)s::jsonb)
        found (one text, other text, cosine float8, layers int)
    where found.one < found.other
    on conflict (one, other) do nothing
), placed as (
    insert into likeness_texts (encoder, digest, vector)
    select found.encoder, found.digest, found.vector from ended cross join jsonb_to_recordset(%(vectors)s::jsonb)
        found (encoder text, digest text, vector real[])
    on conflict (encoder, digest) do nothing
)
select * from ended
"""

_KNOWN: Final[Mapping[AnalysisSource, str]] = {
    "weights": "exists (select from likeness_signatures found where found.fingerprint = analyses.content)",
    "text": "exists (select from likeness_texts found where found.encoder = analyses.encoder and found.digest = analyses.content)",
}
_OVERDUE: Final = f"""
select models.id, models.kind, models.name, models.model_name, models.fingerprint, models.trigger_words, models.tags, models.description,
    models.metadata, models.changed_at
from models left join analyses on analyses.model = models.id and analyses.source = %(source)s
where models.missing_since is null and models.kind = any (%(kinds)s) and (%(only)s::uuid[] is null or models.id = any (%(only)s))
    and (analyses.model is null or analyses.seen_change <> models.changed_at or analyses.encoder <> %(encoder)s
        or (not {{known}} and not exists (select from jobs where jobs.id = analyses.job and jobs.state in ('queued', 'running'))
            and (%(again)s or analyses.asked_at < now() - make_interval(secs => {PATIENCE_SECONDS}))))
order by analyses.asked_at nulls first, models.id limit %(limit)s
"""
_ASKED: Final = """
insert into analyses (model, source, content, encoder, seen_change, job, asked_at)
values (%(model)s, %(source)s, %(content)s, %(encoder)s, %(seen_change)s, %(job)s, now())
on conflict (model, source) do update set content = excluded.content, encoder = excluded.encoder, seen_change = excluded.seen_change,
    job = coalesce(excluded.job, analyses.job), asked_at = now()
"""
_FOUND: Final[Mapping[AnalysisSource, str]] = {
    "weights": "select fingerprint as content from likeness_signatures where fingerprint = any (%(contents)s)",
    "text": "select digest as content from likeness_texts where encoder = %(encoder)s and digest = any (%(contents)s)",
}
_OPEN: Final = """
select id from jobs where owner = %(owner)s and state in ('queued', 'running') and task = %(task)s order by id limit %(limit)s
"""
#: What is looked at of which kinds.
KINDS: Final[Mapping[AnalysisSource, tuple[str, ...]]] = {
    "weights": ("lora",),
    "text": ("lora", "embedding", "controlnet", "vae", "upscaler"),
}


@dataclass(frozen=True)
class Grounds:
    """What the fleet is asked on: its models, its workers, and the checkpoint whose text encoder reads, where there is one."""

    models: Models
    fleet: Fleet
    reads: ModelEntry | None


def complete_analysis(
    connection: "psycopg.Connection[Any]", job: UUID, epoch: int, seq: int, findings: Findings, seconds: float
) -> Change | None:
    """Record what was found together with the job's success; None when the job is no longer this writer's, and nothing is recorded."""
    values = {"job": job, "epoch": epoch, "seq": seq, "seconds": seconds}
    found = {name: to_json([asdict(each) for each in getattr(findings, name)]).decode() for name in asdict(findings)}
    return change_once(connection, _COMPLETE, values | found)


async def ask_for_entries(
    connection: "psycopg.AsyncConnection[Any]",
    grounds: Grounds,
    source: AnalysisSource,
    *,
    only: Sequence[UUID] | None = None,
    again: bool = False,
    limit: int = 200,
) -> list[Change]:
    """Ask for what is not known of entries, or no longer right, and return the changes to announce; `again` also what failed lately."""
    if source == "text" and grounds.reads is None:
        return []
    encoder = "" if source == "weights" or grounds.reads is None else grounds.reads.fingerprint
    values = {
        "source": source, "kinds": list(KINDS[source]), "only": None if only is None else list(only), "encoder": encoder, "again": again,
        "limit": limit,
    }  # fmt: skip
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("select pg_advisory_xact_lock(%s)", (ANALYSES,))
        await cursor.execute(_OVERDUE.format(known=_KNOWN[source]), values)
        rows = await cursor.fetchall()
        texts = {row["id"]: text_of(row) for row in rows}
        contents = {
            row["id"]: row["fingerprint"] if source == "weights" else text_digest(texts[row["id"]]) for row in rows
        }
        await cursor.execute(_FOUND[source], {"contents": list(contents.values()), "encoder": encoder})
        known = {row["content"] for row in await cursor.fetchall()}
        unknown = [row for row in rows if contents[row["id"]] not in known]
        asked = await _submit_all(connection, grounds, source, unknown, texts)
        for row in rows:
            change = asked.get(row["id"])
            if change is None and contents[row["id"]] not in known:
                # Its files are away, or nobody can hold them now: that may be otherwise the next time.
                continue
            await cursor.execute(
                _ASKED,
                {
                    "model": row["id"], "source": source, "content": contents[row["id"]], "encoder": encoder,
                    "seen_change": row["changed_at"], "job": None if change is None else change.job,
                },
            )  # fmt: skip
    return list({change.job: change for change in asked.values()}.values())


async def _submit_all(
    connection: "psycopg.AsyncConnection[Any]",
    grounds: Grounds,
    source: AnalysisSource,
    rows: Sequence[Mapping[str, Any]],
    texts: Mapping[UUID, str],
) -> dict[UUID, Change]:
    """Submit the jobs for these entries and return each entry's; one whose files no worker can hold has none."""
    size = 1 if source == "weights" else TEXTS_PER_JOB
    asked: dict[UUID, Change] = {}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        parameters = (
            _parameters("weights", part[0]["name"], adapters=[part[0]["name"]])
            if source == "weights" or grounds.reads is None
            else _parameters("text", grounds.reads.name, texts=list(dict.fromkeys(texts[row["id"]] for row in part)))
        )
        new = _new_job(grounds, parameters)
        if new is None:
            continue
        accepted = await submit(connection, new)
        if accepted.change is not None:
            asked.update(dict.fromkeys((row["id"] for row in part), accepted.change))
    return asked


async def ask_to_compare(
    connection: "psycopg.AsyncConnection[Any]", grounds: Grounds, one: ModelEntry, others: Sequence[ModelEntry]
) -> Accepted | None:
    """Ask for the exact cosines of one LoRA with others; the same question within a day is the same job. None where nobody can answer."""
    parameters = _parameters("comparison", one.name, adapters=[one.name, *(other.name for other in others)])
    prints = sorted(other.fingerprint for other in others)
    return await _ask_once(connection, grounds, parameters, "compare", (one.fingerprint, *prints))


async def ask_for_text(connection: "psycopg.AsyncConnection[Any]", grounds: Grounds, text: str) -> Accepted | None:
    """Ask where a text lies, for somebody who waits; the same text within a day is the same job. None where nobody can answer."""
    if grounds.reads is None:
        return None
    parameters = _parameters("text", grounds.reads.name, texts=[text], priority=AWAITED)
    return await _ask_once(connection, grounds, parameters, "text", (grounds.reads.fingerprint, text))


async def open_jobs(connection: "psycopg.AsyncConnection[Any]", limit: int) -> list[UUID]:
    """Return the analyses that wait or run, those asked for first before the others."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_OPEN, {"owner": OWNER, "task": TASK, "limit": limit})
        return [row["id"] for row in await cursor.fetchall()]


async def _ask_once(
    connection: "psycopg.AsyncConnection[Any]",
    grounds: Grounds,
    parameters: AnalyseParameters,
    what: str,
    parts: Iterable[str],
) -> Accepted | None:
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    new = _new_job(grounds, parameters, f"{what}:{digest}")
    return None if new is None else await submit(connection, new)


def _parameters(
    subject: Subject, model: str, *, adapters: Sequence[str] = (), texts: Sequence[str] = (), priority: int = LAST
) -> AnalyseParameters:
    return AnalyseParameters(
        subject=subject, model=model, adapters=list(adapters), texts=list(texts), priority=priority
    )


def _new_job(grounds: Grounds, parameters: AnalyseParameters, idempotency_key: str | None = None) -> NewJob | None:
    """Return the job, or None where one of its models is away or no worker that looks at models can hold them."""
    if any(need.ref not in grounds.models for need in needs_of(parameters)):
        return None
    memory = memory_of(parameters, grounds.models)
    try:
        hardware = route(TASK, memory, None, grounds.fleet)
    except TooLargeForFleet:
        return None
    main = main_need(parameters)
    key = TASK if main is None else grounds.models[main.ref].model_key
    return NewJob(OWNER, parameters, key, memory, hardware, idempotency_key)


def is_answered(grounds: Grounds) -> bool:
    """Tell whether a worker that looks at models is online."""
    return any(TASK in worker.tasks and worker.state != "draining" for worker in grounds.fleet.online())


def lora(models: Models, name: str) -> ModelEntry | None:
    """Return the LoRA of this name as jobs know it."""
    return models.get(ModelRef(Kind.LORA, name))
