"""The table of families in the documentation says what the facts say."""

from pathlib import Path

from models_registry.families import FAMILIES

PAGE = Path(__file__).parents[3] / "docs/models.md"


def _rows(columns: int) -> list[list[str]]:
    rows = (line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `"))
    return [row for row in rows if len(row) == columns]


def test_the_table_of_variants_is_true() -> None:
    """One row for each variant, in the order of the facts, with its published defaults."""
    assert _rows(9) == [
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


def test_every_family_says_how_it_reads_a_prompt() -> None:
    """One row of the table of prompts names it, and no row names another."""
    named = [name.strip("`") for row in _rows(5) for name in row[0].split(", ")]
    assert sorted(named) == sorted(FAMILIES)
