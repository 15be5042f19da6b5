"""Names and versions are parted and ordered as people mean them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.versions import join_ref, split_ref, version_order


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("", "v1"),
        ("v2", "v10"),
        ("1.5", "1.10"),
        ("v1", "v1.0.1"),
        ("v1-beta", "v2"),
        ("V1", "v2"),
        ("2024-01", "2024-02"),
    ],
)
def test_version_order_counts_numbers_as_numbers(older: str, newer: str) -> None:
    """Ten comes after two, and what has no version before all."""
    assert version_order(older) < version_order(newer)


@given(st.text(min_size=1).filter(lambda name: "@" not in name), st.text().filter(lambda version: "@" not in version))
def test_a_ref_is_parted_as_it_was_joined(name: str, version: str) -> None:
    """What was joined comes apart again."""
    assert split_ref(join_ref(name, version)) == (name, version)
