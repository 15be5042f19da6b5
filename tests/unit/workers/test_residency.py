"""What leaves a device: bytes that are really freed, by how long they were not used and how soon they are back."""

from collections.abc import Mapping

from workers.residency import Residency

#: Storages by the numbers that tell them apart.
UNET, OTHER_UNET, T5, VAE = 1, 2, 3, 4


def residency(**models: tuple[Mapping[int, int], float]) -> tuple[Residency[str], list[str]]:
    """Return models loaded one after another, each with its weights and the seconds it took, and what is closed from now on."""
    closed: list[str] = []
    held = Residency[str](closed.append)
    for key, (weights, seconds) in models.items():
        held.put(key, key, weights, seconds)
    return held, closed


def test_what_two_models_have_in_common_counts_once() -> None:
    """It is neither twice in the sum, nor freed while one of the two stays."""
    held, closed = residency(a=({UNET: 10, T5: 40}, 1.0), b=({OTHER_UNET: 10, T5: 40}, 1.0))
    assert held.bytes == 60
    assert held.shrink(50)
    assert (closed, held.bytes) == (["a"], 50)
    assert held.shrink(49)
    assert (closed, held.bytes) == (["a", "b"], 0)


def test_used_longest_ago_leaves_first_and_a_use_counts() -> None:
    """Among models that free as much and are back as soon."""
    held, closed = residency(a=({1: 10}, 1.0), b=({2: 10}, 1.0), c=({3: 10}, 1.0))
    assert held.take("a") == "a"
    assert held.keys == ("b", "c", "a")
    held.shrink(20)
    assert (closed, held.models) == (["b"], ("c", "a"))


def test_what_frees_more_or_is_back_sooner_leaves_first() -> None:
    """A small or slow model stays although it was used longer ago."""
    held, closed = residency(small=({1: 10}, 1.0), large=({2: 100}, 1.0), last=({3: 1}, 1.0))
    held.shrink(50)
    assert closed == ["large"]
    held, closed = residency(slow=({1: 10}, 60.0), quick=({2: 10}, 1.0), last=({3: 1}, 1.0))
    held.shrink(15)
    assert closed == ["quick"]


def test_model_whose_parts_all_stay_is_no_room() -> None:
    """One that shares everything with a kept model frees nothing, so that another leaves; where nothing can be freed, nobody does."""
    held, closed = residency(
        twin=({UNET: 10, VAE: 2}, 1.0), other=({OTHER_UNET: 1}, 1.0), own=({UNET: 10, VAE: 2}, 1.0)
    )
    held.shrink(12, "own")
    assert closed == ["other"]
    assert not held.shrink(5, "own")
    assert held.keys == ("twin", "own")


def test_models_that_share_everything_leave_together() -> None:
    """Neither frees anything alone."""
    held, closed = residency(one=({UNET: 10}, 1.0), two=({UNET: 10}, 1.0))
    assert held.shrink(0)
    assert (closed, held.bytes) == (["one", "two"], 0)


def test_pinned_storages_stay_whoever_leaves() -> None:
    """What the next job needs is not counted as freed, and still counted as held."""
    held, closed = residency(a=({UNET: 10, T5: 40}, 1.0), b=({OTHER_UNET: 12}, 1.0))
    held.take("a")
    held.take("b")
    assert held.shrink(55, pinned={T5: 40})
    assert closed == ["a"]
    assert held.shrink(45, pinned={T5: 40})
    assert closed == ["a", "b"]
    assert not held.shrink(0, pinned={T5: 40})


def test_clearing_keeps_the_one_in_use() -> None:
    """And says whether there was another."""
    held, closed = residency(a=({1: 1}, 1.0), b=({2: 1}, 1.0))
    assert held.clear("a")
    assert (closed, held.keys) == (["b"], ("a",))
    assert not held.clear("a")
    assert held.clear()
    assert "a" not in held
