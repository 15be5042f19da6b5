"""The OpenAPI document is true: whatever is sent is answered as it says."""

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
STREAMS = frozenset({"readEvents", "readBatchEvents", "progressSocket", "readDownloadEvents", "readLookupEvents"})
LISTED = sorted(
    (path, method, operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
)
EXAMPLES = 12
# What tus calls bytes.
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@pytest.fixture(scope="module")
def key(shared_world: Any) -> str:
    """Return a key that may do everything."""
    found: str = shared_world.key("ann", ("user", "admin"))
    return found


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
        if isinstance(wait := (case.query or {}).get("wait"), int | float):
            # Nobody draws here: whoever waits longer learns nothing more.
            case.query["wait"] = min(wait, 0.2)
        response = case.call(base_url=shared_live.url, timeout=20)
        if response.status_code >= 500:
            found.append(f"{response.status_code} {response.text[:300]}")
        case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])

    send()
    assert not found
