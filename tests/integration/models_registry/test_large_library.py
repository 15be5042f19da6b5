"""A library of 100 000 entries is looked through by its indexes: a page touches about a page of rows, whatever is asked."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from infra.database import Connection, connect
from jobs.history.use_totals import BY_USES
from models_registry.entries import Kind
from models_registry.library import who
from models_registry.listing import RANKED, Cursor, Order, Wanted, encode, page_statement
from models_registry.records import Reader
from tests.library_entries import fill_library

ENTRIES = 100_000
LIMIT = 50
ANN = Reader("ann", "k1")
LORAS = (Kind.LORA,)


@pytest.fixture(scope="module")
def large(services: Any, template_database: str) -> Iterator[Connection]:
    """Fill one library for all tests of the module, which only read."""
    name = "large_library"
    url = services.database_url.rsplit("/", 1)
    with psycopg.connect(services.database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template_database))
        )
        try:
            with connect(f"{url[0]}/{name}", application_name="test", statement_seconds=120) as connection:
                fill_library(connection, ENTRIES)
                yield connection
        finally:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def explained(connection: Connection, wanted: Wanted, **asked: Any) -> tuple[list[dict[str, Any]], int]:
    """Return the nodes of a page's plan, and how many rows of `models` they read."""
    statement, values, _, _ = page_statement(wanted, **asked)
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"explain (analyze, format json) {statement}", {**values, **who(ANN), "limit": LIMIT + 1})
        row = cursor.fetchone()
    assert row is not None
    nodes = list(_nodes(row["QUERY PLAN"][0]["Plan"]))
    read = 0
    for node in nodes:
        if node.get("Relation Name") == "models":
            lost = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            read += (node["Actual Rows"] + lost) * node["Actual Loops"]
    return nodes, read


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from _nodes(each)


def indexes(nodes: list[dict[str, Any]]) -> set[str]:
    """Return the indexes that a plan uses, having looked that it reads no table of entries whole."""
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "models"]
    return {node["Index Name"] for node in nodes if "Index Name" in node}


@pytest.mark.parametrize(("text", "found"), [("lora 4711", 1), ("rareword", 10), ("tag42", 1000)])
def test_search_uses_its_index(large: Connection, text: str, found: int) -> None:
    """It reads what it finds, and no more than a few rows beside."""
    nodes, read = explained(large, Wanted(kinds=LORAS, text=text))
    assert "models_search" in indexes(nodes)
    assert min(found, LIMIT) <= read <= 2 * found + 20


def test_a_word_that_everything_has_is_ranked_in_part(large: Connection) -> None:
    """So many are ranked, however many there are."""
    _, read = explained(large, Wanted(kinds=LORAS, text="lora"))
    assert read <= RANKED + LIMIT


@pytest.mark.parametrize(
    ("order", "index"),
    [
        (Order.NAME, "models_by_name"),
        (Order.CREATED, "models_by_age"),
        (Order.UPDATED, "models_by_change"),
        (Order.SIZE, "models_by_size"),
    ],
)
@pytest.mark.parametrize("falls", [False, True])
def test_a_page_costs_a_page(large: Connection, order: Order, index: str, *, falls: bool) -> None:
    """In every order, forwards and backwards, the first page and one in the middle."""
    nodes, read = explained(large, Wanted(kinds=LORAS), order=order, falls=falls)
    assert index in indexes(nodes)
    assert read <= 2 * LIMIT + 20


@pytest.mark.parametrize("falls", [False, True])
@pytest.mark.parametrize("begins", [True, False])
def test_a_page_of_the_most_used_costs_a_page(large: Connection, *, falls: bool, begins: bool) -> None:
    """Also behind a cursor, among all those that nobody used."""
    wanted, cursor = Wanted(kinds=LORAS), None
    if not begins:
        cursor = encode(Cursor(order="uses", falls=falls, value=0, id=UUID(int=2**127)))
    nodes, read = explained(large, wanted, order=BY_USES, falls=falls, cursor=cursor)
    assert "model_use_totals_by_uses" in indexes(nodes)
    assert read <= 2 * LIMIT + 20
    looked = [node for node in nodes if node.get("Relation Name") == "model_use_totals"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in looked) <= LIMIT + 1
    assert not any(node.get("Rows Removed by Filter") for node in looked)


def test_tags_use_their_index(large: Connection) -> None:
    """What has two tags is read, and no more."""
    nodes, read = explained(large, Wanted(kinds=LORAS, tags=("tag43", "odd")), order=Order.SIZE)
    assert "models_tags" in indexes(nodes)
    assert read <= 1100


def test_what_one_marked_is_found_by_the_marks(large: Connection) -> None:
    """A few favourites among all cost a few rows."""
    nodes, read = explained(large, Wanted(kinds=LORAS, favourite=True), order=Order.NAME)
    assert indexes(nodes)
    assert read <= 200
