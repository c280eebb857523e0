"""The environment header says what a number depends on."""

import platform
from importlib import metadata

import torch

from lossbench.bench.records import environment


def test_environment_names_hardware_and_software():
    facts = environment.describe("cpu", threads=3)
    assert facts["torch"] == torch.__version__
    assert facts["numpy"] == metadata.version("numpy")
    assert facts["python"] == platform.python_version()
    assert facts["threads"] == 3
    assert facts["memory_bytes"] > 2**28
    assert facts["gpu"] is None
    assert facts["cpu"]


def test_environment_is_the_same_twice():
    first, second = (environment.describe("cpu", 2) for _ in range(2))
    assert environment.content_hash(first) == environment.content_hash(second)
    assert environment.content_hash(first) != environment.content_hash(first | {"threads": 1})


def test_the_kind_of_a_cpu_is_its_family_model_and_stepping(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    lines = (
        "processor : 0",
        "cpu family\t: 25",
        "model\t\t: 17",
        "model name\t: AMD",
        "stepping : 1",
    )
    monkeypatch.setattr(environment, "Path", lambda _: cpuinfo)
    assert environment.cpu_kind() == ""
    cpuinfo.write_text("\n".join(lines))
    assert environment.cpu_kind() == "25-17-1"


def test_code_hash_follows_the_source(tmp_path, monkeypatch):
    for package in ("losses", "bench"):
        (tmp_path / package).mkdir()
    (tmp_path / "losses" / "code.py").write_text("a = 1")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    before = environment.code_hash()
    (tmp_path / "bench" / "display.py").write_text("how a table looks decides no number")
    assert environment.code_hash() == before
    (tmp_path / "losses" / "code.py").write_text("a = 2")
    assert environment.code_hash() != before
    assert environment.source_state()["git_commit"] is None  # not a checkout
