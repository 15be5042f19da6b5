"""GET /v1/analytics/{summary,series}: what became of jobs over time; users see their own, admins everyone's."""

import csv
import io
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from jobs.history.analytics import By, Metric, Series, read_series, summarise
from jobs.history.spans import Step, series_span, summary_span

CSV = "text/csv"
#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class SummaryQuery(Query):
    """Which stretch of time to sum up."""

    since: AwareDatetime | None = Field(
        default=None, description="Ended then or later, RFC 3339; a day ago by default."
    )
    until: AwareDatetime | None = Field(default=None, description="Ended before then, RFC 3339; now by default.")


class SeriesQuery(SummaryQuery):
    """Which lines to draw."""

    metric: Metric = Field(
        default="jobs",
        description=(
            "`jobs` that ended, `pictures`, `failed` jobs, `error_share` of those that succeeded or failed, seconds spent drawing "
            "(`busy_s`), and within how many seconds half or 95 of 100 jobs began (`wait_…`) or were drawn (`seconds_…`)."
        ),
    )
    by: By = Field(default="all", description="A line for each of the busiest of these, and one for the rest.")
    step: Step | None = Field(
        default=None, description="Chosen to suit the range by default; weeks begin on Monday, UTC."
    )
    format: Literal["json", "csv"] | None = Field(default=None, description="Else as `Accept` says; JSON by default.")


async def read_summary(call: Call) -> Response:
    """Sum up what ended in a stretch of time."""
    query = call.query(SummaryQuery)
    span = summary_span(query.since, query.until, datetime.now(UTC))
    async with call.services.pool.connection() as connection:
        return json_answer(await summarise(connection, call.principal.sees, span))


async def read_lines(call: Call) -> Response:
    """Return lines over time, as JSON or as a table."""
    query = call.query(SeriesQuery)
    span = series_span(query.since, query.until, query.step, datetime.now(UTC))
    async with call.services.pool.connection() as connection:
        series = await read_series(connection, call.principal.sees, span, query.metric, query.by)
    asked = query.format or ("csv" if _prefers_csv(call.request.headers.get("accept", "")) else "json")
    return _table(series) if asked == "csv" else json_answer(series)


def _prefers_csv(accept: str) -> bool:
    ranges = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    known = [each for each in ranges if each in {CSV, "application/json", "application/*", "*/*"}]
    return known[:1] == [CSV]


def _table(series: Series) -> Response:
    """Render lines as columns, a row for each step."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["time", *(_title(line.name, series, is_rest=line.is_rest) for line in series.items)])
    for place, time in enumerate(series.times):
        values = (line.values[place] for line in series.items)
        rows.writerow([time.isoformat(), *("" if value is None else f"{value:g}" for value in values)])
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{series.metric}-by-{series.by}.csv"',
    }
    return Response(text.getvalue(), media_type=CSV, headers=headers)


def _title(name: str, series: Series, *, is_rest: bool) -> str:
    if is_rest:
        return "others"
    shown = name or (series.metric if series.by == "all" else "none")
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
