"""Torchvision beside a torch it was not compiled for: spandrel can be imported with our declarations, and only with them."""

import subprocess
import sys

import pytest

_PLAIN = "import spandrel"
_WITH = """
import pipelines.torchvision_operators as operators
print(operators.define_missing_operators(), operators.define_missing_operators())
import spandrel
print(len(spandrel.MAIN_REGISTRY))
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def plain() -> subprocess.CompletedProcess[str]:
    """Import spandrel alone, in a process of its own."""
    return _run(_PLAIN)


def test_spandrel_can_be_imported() -> None:
    """Declared once or twice, with the package's own first import or ours."""
    done = _run(_WITH)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 30


def test_declarations_are_what_lets_it_be_imported(plain: subprocess.CompletedProcess[str]) -> None:
    """Where torchvision fits torch they change nothing; where it does not, the plain import fails by the operator they declare."""
    if plain.returncode == 0:
        pytest.skip("torchvision is compiled for this torch: nothing is missing")
    assert "torchvision::nms" in plain.stderr
    assert _run("import pipelines; import spandrel").returncode == 0
