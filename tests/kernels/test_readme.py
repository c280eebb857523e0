"""The example in the kernels' README is the file that it says it is."""

from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"


def test_example_is_the_file():
    readme = (KERNELS / "README.md").read_text()
    code = (KERNELS / "spectral_contrastive.py").read_text()
    assert f"```py\n{code}```" in readme


def test_an_epilogue_takes_less_than_40_lines():
    code = (KERNELS / "spectral_contrastive.py").read_text()
    body = code[code.index("@jit") :]
    assert len(body.splitlines()) < 40
