"""What an API key looks like."""

import pytest

from broker_api.auth.key_format import draw_key, hash_of, key_id_of


def test_draw_key_makes_keys_that_are_recognised() -> None:
    """A key tells its id, has 256 random bits, and never comes twice."""
    keys = [draw_key() for _ in range(100)]
    assert {key_id_of(key.text) for key in keys} == {key.id for key in keys}
    assert len({key.text for key in keys}) == 100
    assert keys[0].text.startswith(f"if_{keys[0].id}_")
    assert hash_of(keys[0].text) == keys[0].hash != keys[1].hash
    assert 62**43 > 2**256


@pytest.mark.parametrize("change", ["first", "last", "short", "long", "case", "foreign", "empty", "nul"])
def test_key_id_of_refuses_what_is_no_key(change: str) -> None:
    """A typing error is found without asking the database."""
    text = draw_key().text
    other = {
        "first": "i_" + text[2:],
        "last": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "short": text[:-1],
        "long": text + "0",
        "case": text.swapcase(),
        "foreign": "ß" + text[1:],
        "empty": "",
        "nul": text[:20] + "\0" + text[21:],
    }[change]
    assert key_id_of(other) is None
