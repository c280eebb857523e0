"""Tuning takes what its clock says is fastest, and writes the table that the kernels read."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from command_line import call_lossbench

from lossbench import losses
from lossbench.bench.counting.recording import CAN_RECORD, recorded
from lossbench.bench.predicting import audit
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


def always():
    return 1e9


def tuned(start, time, left_s=always):
    return dict(tune.tune(start, time, left_s))


def test_each_setting_is_the_fastest(start):
    wanted = {"rows": 64, "columns": 64, "step": 32, "stages": 4, "strip": 32, "side": 8192}
    for config in tuned(start, fastest(**wanted)).values():
        assert {name: getattr(config, name) for name in wanted} == wanted
    kept = [config.processors for config in tuned(start, fastest(**wanted)).values()]
    assert kept == [config.processors for config in start.values()]


def test_each_that_is_told_is_faster_than_the_one_before(start):
    time = fastest(rows=64, stages=4)
    told = [config for kind, config in tune.tune(start, time, always) if kind == "16-bit"]
    costs = [time(config, "16-bit", "fused", 2048, 1024) for config in (start["16-bit"], *told)]
    assert len(told) > 1
    assert costs[:-1] == sorted(set(costs[:-1]), reverse=True)


def test_time_is_shared_by_the_kinds_and_the_search_ends_with_it(start):
    """With a clock by which each new configuration takes 20 s, as compiling one may."""
    spent, by_kind, seen = [0.0], {}, set()

    def time(config, kind, strategy, batch, depth):
        if (config, kind) not in seen:
            seen.add((config, kind))
            spent[0] += 20.0
            by_kind[kind] = by_kind.get(kind, 0.0) + 20.0
        return fastest(stages=4, side=8192)(config, kind, strategy, batch, depth)

    found = tuned(start, time, lambda: 300.0 - spent[0])
    assert set(found) == set(start)
    assert spent[0] <= 300.0 + 3 * 40.0
    assert max(by_kind.values()) <= 300.0 / len(start) + 40.0


def test_a_difference_that_may_be_noise_changes_nothing(start):
    def time(config, kind, strategy, batch, depth):
        return 1.0 if config.stages == start[kind].stages else 0.99

    assert tuned(start, time) == {
        kind: replace(config, fused_up_to=8192) for kind, config in start.items()
    }


def test_fused_tiles_up_to_where_the_library_is_faster(start):
    assert {config.fused_up_to for config in tuned(start, fastest()).values()} == {1024}


def test_never_fused_where_it_is_always_slower(start):
    def time(config, kind, strategy, batch, depth):
        return 2.0 if strategy == "fused" else 1.0

    assert {config.fused_up_to for config in tuned(start, time).values()} == {0}


def test_a_tile_that_cannot_run_is_not_taken(start):
    def time(config, kind, strategy, batch, depth):
        return float("inf") if config.rows == 128 else 1.0

    assert {config.rows for config in tuned(start, time).values()} == {64}


def test_sides_that_do_not_fit_together_are_not_tried(start):
    """A finished tile larger than a made one would read what was not written."""
    found = tuned(start, fastest(rows=64, strip=128)).values()
    assert all(config.rows % config.strip == 0 for config in found)
    with pytest.raises(ValueError, match="rows 64 is no multiple of strip 128"):
        replace(start["ieee"], rows=64, strip=128)


def test_a_gpu_on_which_nothing_runs(start):
    with pytest.raises(RuntimeError, match="no 16-bit tile that was tried runs"):
        tuned(start, lambda *_: float("inf"))


def test_every_setting_that_is_searched_for_is_one_of_the_configuration(start):
    assert set(tune.AXES) < set(asdict(start["ieee"]))


@pytest.mark.skipif(not CAN_RECORD, reason="kernels are not launched here")
@pytest.mark.parametrize("kind", tune.KINDS)
@pytest.mark.parametrize("strategy", configs.STRATEGIES)
def test_what_is_timed_are_the_kernels_that_the_loss_launches(start, kind, strategy):
    """Those that make or finish tiles: others would be tuned for nobody."""

    def launched(run):
        found = set()

        def note(kernel, arguments, grid):
            if "region_down" in arguments:
                found.add(audit.describe(kernel, arguments, kind))

        with recorded(start[kind], note):
            run()
        return found

    precision = "tf32" if kind == "tf32" else "ieee"
    loss = losses.create("smi", "triton", strategy=strategy, precision=precision)
    views = [torch.ones(256, 256, dtype=tune.KINDS[kind], requires_grad=True) for _ in "ab"]
    of_loss = launched(lambda: loss(*views))
    assert of_loss
    assert launched(tune.sweep(kind, strategy, 256, 256, "cpu")) == of_loss


def test_written_for_its_architecture_alone(start, tmp_path, monkeypatch):
    copy = tmp_path / "tuned.json"
    shutil.copy(configs.TABLE, copy)
    monkeypatch.setattr(configs, "TABLE", copy)
    other = {kind: replace(config, stages=7) for kind, config in start.items()}
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
