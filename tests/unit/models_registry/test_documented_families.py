"""The table of families in the documentation says what the facts say."""

from pathlib import Path

from models_registry.families import FAMILIES

PAGE = Path(__file__).parents[3] / "docs/models.md"


def test_the_table_of_variants_is_true() -> None:
    """One row for each variant, in the order of the facts, with its published defaults."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    said = [row for row in rows if row[0].strip("`") in FAMILIES]
    assert said == [
        [
            f"`{family.name}`",
            f"`{name}`",
            facts.title,
            ", ".join(sorted(facts.tasks)),
            str(facts.native_size or family.native_size),
            str(facts.steps),
            f"{facts.guidance_scale:g}",
            facts.scheduler,
            facts.guidance.value,
        ]
        for family in FAMILIES.values()
        for name, facts in family.variants.items()
    ]
