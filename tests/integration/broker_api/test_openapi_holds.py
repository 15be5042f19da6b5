"""The OpenAPI document is true: its examples work, and whatever is sent is answered as it says."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from broker_api.openapi import openapi_document
from broker_api.routes import ENDPOINTS

DOCUMENT = openapi_document(ENDPOINTS, version="test")
#: Streams do not end by themselves, and a WebSocket is no request.
STREAMS = frozenset({"readEvents", "readBatchEvents", "progressSocket"})
LISTED = sorted(
    (path, method, operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
)
EXAMPLES = 12


@pytest.fixture(scope="module")
def key(shared_world: Any) -> str:
    """Return a key that may do everything."""
    found: str = shared_world.key("ann", ("user", "admin"))
    return found


@pytest.mark.parametrize(("path", "method", "name"), LISTED, ids=[name for _, _, name in LISTED])
def test_example_is_answered_as_described(
    shared_live: Any, shared_world: Any, key: str, path: str, method: str, name: str
) -> None:
    """What the document shows can be sent, to something that is there, and the answer is one of those it names."""
    operation = DOCUMENT["paths"][path][method]
    with shared_live.client(key) as client:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        batch = client.post("/v1/batches", json={"jobs": [{"prompt": "x"}]}).json()["id"]
        url = (
            path.replace("{id}", batch if "batches" in path else job).replace("{n}", "0").replace("{sha256}", "0" * 64)
        )
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if name in {"readEvents", "readBatchEvents"}:
            client.post(f"/v1/batches/{batch}/cancel")
            client.post(f"/v1/jobs/{job}/cancel")
        answer = client.request(method, url, json=body)
    shared_world.connection.execute("delete from jobs")
    assert str(answer.status_code) in operation["responses"], answer.text
    if body is not None:
        # The example itself is in order; that which it names may not be there.
        assert answer.status_code < 300 or answer.json()["code"] == "not_found", answer.text


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, method, name in LISTED if name not in STREAMS],
    ids=[name for _, _, name in LISTED if name not in STREAMS],
)
def test_nothing_sent_makes_the_server_fail(shared_live: Any, key: str, path: str, method: str) -> None:
    """Generated requests, good and bad, get no 5xx and no answer that is not described."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation = schema[path][method]
    strategy = st.one_of(operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    found: list[str] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Any) -> None:
        case.headers = {**(case.headers or {}), "authorization": f"Bearer {key}"}
        response = case.call(base_url=shared_live.url, timeout=20)
        if response.status_code >= 500:
            found.append(f"{response.status_code} {response.text[:300]}")
        case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])

    send()
    assert not found
