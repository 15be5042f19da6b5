"""The OpenAPI document and the docs page, both from the route table."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from openapi_spec_validator import validate

from broker_api.docs import docs_page, landing_page
from broker_api.openapi import openapi_document, problems_of
from broker_api.routes import ENDPOINTS

DOCUMENT = openapi_document(ENDPOINTS, version="1.2.3")


def test_document_is_valid_openapi() -> None:
    """An independent validator accepts it as OpenAPI 3.1."""
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_document_describes_every_listed_endpoint() -> None:
    """Nothing of the table is left out, ids are unique, and everything but the public paths wants a key."""
    described = {
        (path, method.upper()): operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    listed = {(endpoint.path, endpoint.method): endpoint for endpoint in ENDPOINTS if endpoint.listed}
    assert set(described) == set(listed)
    assert len({operation["operationId"] for operation in described.values()}) == len(described)
    public = {path for (path, _), operation in described.items() if operation["security"] == []}
    assert public == {"/healthz", "/readyz", "/openapi.json"}


def test_every_path_but_the_public_ones_needs_a_key() -> None:
    """The table says so for pages too."""
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.access == "public"}
    assert public == {"/", "/docs", "/flower", "/healthz", "/readyz", "/openapi.json"}


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.body], ids=lambda endpoint: endpoint.name)
def test_body_examples_are_valid(endpoint: Any) -> None:
    """What the document shows can be sent."""
    assert endpoint.body.parse(dict(endpoint.body.example))


def test_every_problem_is_explained_where_its_type_points() -> None:
    """`type` of a problem leads to its line on the docs page."""
    problems = {error for endpoint in ENDPOINTS for error in problems_of(endpoint)}
    page = docs_page(DOCUMENT, problems).decode()
    for error in problems:
        assert f'id="problem-{error.code}"' in page
    assert len({error.code for error in problems}) == len(problems)


class _Checker(HTMLParser):
    """Collect ids and links, and complain about tags that are not closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag."""
        if tag not in self.VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []

    def handle_endtag(self, tag: str) -> None:
        """Take its end."""
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "page", [docs_page(DOCUMENT, ()), landing_page(version="1<2", url="http://127.0.0.1:8420")], ids=["docs", "landing"]
)
def test_pages_are_whole_and_need_nothing_else(page: bytes) -> None:
    """Tags are closed, ids unique, links inside the page lead somewhere, and nothing is loaded from elsewhere."""
    checker = _Checker()
    checker.feed(page.decode())
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    inside = {link[1:] for link in checker.links if link.startswith("#")}
    assert inside <= set(checker.ids) | {"problems"}
    assert not re.search(rb"<script|<link|src=|@import|url\(", page)
    assert b"1<2" not in page
