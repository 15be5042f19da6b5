"""The OpenAPI document and the docs page, both from the route table."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from openapi_spec_validator import validate

from broker_api.docs import docs_page, landing_page
from broker_api.openapi import openapi_document, problems_of
from broker_api.routes import ENDPOINTS
from broker_api.web_app import WEB_ENDPOINTS
from jobs import errors
from jobs.contract import PARAMETERS, REQUESTS

#: Files that are the same for everyone; what they show, they ask for with a key.
WEB_APP = {endpoint.path for endpoint in WEB_ENDPOINTS}
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
    assert public == {"/healthz", "/readyz", "/openapi.json", "/v1/signed/{id}/{n}", "/v1/session"}


def test_every_path_but_the_public_ones_needs_a_key() -> None:
    """The table says so for pages too."""
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.access == "public"} - WEB_APP
    assert public == {
        "/", "/docs", "/flower", "/healthz", "/readyz", "/openapi.json", "/v1/signed/{id}/{n}", "/v1/session",
    }  # fmt: skip


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


@pytest.mark.parametrize("task", REQUESTS)
def test_document_describes_every_field_of_every_task(task: str) -> None:
    """A job's body is one of the requests, its view's request one of the parameters; no field of either is left out."""
    schemas = DOCUMENT["components"]["schemas"]
    asked, drawn = REQUESTS[task], PARAMETERS[task]
    body = DOCUMENT["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"$ref": f"#/components/schemas/{asked.__name__}"} in body["oneOf"]
    assert {"$ref": f"#/components/schemas/{drawn.__name__}"} in schemas["JobView"]["properties"]["request"]["anyOf"]
    for model in (asked, drawn):
        assert set(schemas[model.__name__]["properties"]) == set(model.model_fields)


def test_document_names_every_refusal_of_a_job() -> None:
    """Each class of `jobs.errors` that refuses a request stands at the route that can raise it."""
    described = DOCUMENT["paths"]["/v1/jobs"]["post"]["responses"]
    text = " ".join(answer["description"] for answer in described.values())
    refusals = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.RequestRefused)
    ]
    assert [each.code for each in refusals if f"`{each.code}`" not in text] == []


def test_document_describes_a_file_as_body_and_as_field_of_a_form() -> None:
    """Tools can build an upload from it."""
    content = DOCUMENT["paths"]["/v1/uploads"]["post"]["requestBody"]["content"]
    assert content["image/png"]["schema"] == {"type": "string", "format": "binary"}
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]


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
