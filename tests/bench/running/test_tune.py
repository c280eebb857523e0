"""Tuning takes what its clock says is fastest, and writes the table that the kernels read."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from command_line import call_lossbench

from lossbench.bench.running import tune
from lossbench.kernels import configs


@pytest.fixture
def start():
    return configs.table()["90"]


def fastest(**wanted):
    """A clock for which each setting that is not as wanted costs a millisecond."""

    def time(config, kind, strategy, batch, depth):
        extra = 1.0 if strategy == "fused" and depth > 1024 else 0.0
        return extra + sum(getattr(config, name) != value for name, value in wanted.items())

    return time


def test_the_fastest_of_all_combinations(start):
    wanted = {"block": 64, "step": 32, "stages": 4, "finish_block": 32, "side": 8192}
    for kind, config in tune.tune(start, fastest(**wanted)):
        assert {name: getattr(config, name) for name in wanted} == wanted
        assert config.processors == start[kind].processors


def test_fused_tiles_up_to_where_the_library_is_faster(start):
    tuned = dict(tune.tune(start, fastest()))
    assert {config.fused_up_to for config in tuned.values()} == {1024}


def test_never_fused_where_it_is_always_slower(start):
    def time(config, kind, strategy, batch, depth):
        return 2.0 if strategy == "fused" else 1.0

    assert {config.fused_up_to for _, config in tune.tune(start, time)} == {0}


def test_a_tile_that_cannot_run_is_not_taken(start):
    def time(config, kind, strategy, batch, depth):
        return float("inf") if config.block == 128 else 1.0

    assert {config.block for _, config in tune.tune(start, time)} == {64}


def test_sides_that_do_not_fit_together_are_not_tried(start):
    """A finished tile larger than a made one would read what was not written."""
    wanted = fastest(block=64, finish_block=128)
    assert all(c.block % c.finish_block == 0 for _, c in tune.tune(start, wanted))
    with pytest.raises(ValueError, match="block 64 is no multiple of finish_block 128"):
        replace(start["ieee"], block=64, finish_block=128)


def test_a_gpu_on_which_nothing_runs(start):
    with pytest.raises(RuntimeError, match="no tile of"):
        dict(tune.tune(start, lambda *_: float("inf")))


def test_written_for_its_architecture_alone(start, tmp_path, monkeypatch):
    copy = tmp_path / "tuned.json"
    shutil.copy(configs.TABLE, copy)
    monkeypatch.setattr(configs, "TABLE", copy)
    other = {kind: replace(config, group=1) for kind, config in start.items()}
    before = json.loads(copy.read_text())["configurations"]
    tune.write("90", other, "a test")
    after = json.loads(copy.read_text())
    assert after["made_by"]["90"] == "a test"
    assert after["configurations"].pop("90") == {k: asdict(c) for k, c in other.items()}
    before.pop("90")
    assert after["configurations"] == before
    monkeypatch.undo()
    configs.table.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would tune")
def test_without_a_gpu():
    done = call_lossbench("tune")
    assert done.returncode == 2
    assert "there is none here" in done.stderr
