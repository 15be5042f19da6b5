"""What people name as a source is understood, or refused with a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.pulls.failures import SourceInvalid
from models_registry.pulls.plans import plain_text, usable_name
from models_registry.pulls.sources import CivitaiSource, HubSource, Source, UrlSource, parse_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada/hats", HubSource("ada/hats")),
        ("hf:ada/hats@v2", HubSource("ada/hats", None, "v2")),
        ("ada/hats:sub/a b.safetensors@v2", HubSource("ada/hats", "sub/a b.safetensors", "v2")),
        ("https://huggingface.co/ada/hats", HubSource("ada/hats")),
        ("https://huggingface.co/ada/hats/tree/main", HubSource("ada/hats")),
        ("https://huggingface.co/ada/hats/blob/main/a%20b.safetensors", HubSource("ada/hats", "a b.safetensors")),
        ("https://hf.co/ada/hats/resolve/v2/a.safetensors?download=true", HubSource("ada/hats", "a.safetensors", "v2")),
        ("urn:air:flux1:lora:huggingface:ada/hats@v2", HubSource("ada/hats", None, "v2")),
        ("civitai:123", CivitaiSource(123)),
        ("civitai:123@456", CivitaiSource(123, 456)),
        ("urn:air:sdxl:lora:civitai:123@456", CivitaiSource(123, 456)),
        ("air:sdxl:lora:civitai:123@456:x.safetensor", CivitaiSource(123, 456)),
        ("https://civitai.com/models/123/red-hats", CivitaiSource(123)),
        ("https://civitai.com/models/123?modelVersionId=456", CivitaiSource(123, 456)),
        ("https://civitai.com/api/download/models/456?type=Model", CivitaiSource(None, 456)),
        ("https://models.example/a.safetensors?x=1", UrlSource("https://models.example/a.safetensors?x=1")),
        # A host that only looks like the hub's gets no token and none of its doors.
        ("https://huggingface.co.evil.example/ada/hats", UrlSource("https://huggingface.co.evil.example/ada/hats")),
        ("https://huggingface.co:8443/ada/hats", UrlSource("https://huggingface.co:8443/ada/hats")),
    ],
)
def test_source_is_understood(text: str, expected: Source) -> None:
    """In each of the spellings that the sites show."""
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ada/hats", "ada", "ada/hats:../x", "ada/hats:/x", "ada/hats:.git/x", "ada/hats@../x", "civitai:x", "urn:air:a:b:elsewhere:1",
        "file:///etc/passwd", "https://", "https://u:p@h/x", "https://h:x/", "https://huggingface.co/", "https://civitai.com/user/ada",
        "https://civitai.com/models/1?modelVersionId=x", "ada/hats\n", "\ud800/x", "x" * 2001,
    ],
)  # fmt: skip
def test_source_that_is_none_is_refused(text: str) -> None:
    """Before anything is asked."""
    with pytest.raises(SourceInvalid):
        parse_source(text)


@given(
    st.one_of(
        st.text(max_size=60), st.from_regex(r"https?://[\x20-\x7e]{0,40}"), st.from_regex(r"urn:air:[\x20-\x7e]{0,40}")
    )
)
def test_any_text_is_a_source_or_refused(text: str) -> None:
    """Nothing else is raised, and no path leads out of a repository."""
    try:
        found = parse_source(text)
    except SourceInvalid:
        return
    assert not (isinstance(found, HubSource) and found.file is not None and ".." in found.file.split("/"))


@given(st.text(max_size=300))
def test_name_of_a_source_becomes_one_that_a_model_may_have(text: str) -> None:
    """Or nothing is left of it."""
    name = usable_name(text)
    assert name == name.strip()
    assert len(name) <= 150
    assert not set(name) & set("/\\@:<>")
    assert not name.startswith(".")
    assert name.isprintable()


@pytest.mark.parametrize(
    "html", ["<p>a</p><script>x</script><p>b</p>", "</script>a<br><style>x</style>b", "a\n\n<li> b\0"]
)
def test_description_becomes_the_text_that_a_browser_would_show(html: str) -> None:
    """Without what would be run, and without lines that are empty."""
    assert plain_text(html) == "a\nb"


@given(st.text(max_size=300))
def test_any_description_becomes_text(text: str) -> None:
    """Nothing is raised, and it can be stored."""
    assert "\0" not in plain_text(text)
