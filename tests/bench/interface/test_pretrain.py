"""``lossbench pretrain``: records, tables of them, and bad input."""

import json

import numpy as np
import pytest
from command_line import call_lossbench
from PIL import Image
from scipy import stats

from lossbench.bench.interface import training
from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining import throughput as measuring
from lossbench.bench.pretraining.scaling import PARTS
from lossbench.bench.running import job
from lossbench.reports.cli import app as reports
from lossbench.reports.figures import step
from lossbench.reports.page import make_figure
from lossbench.reports.records import load
from lossbench.reports.tables import throughput

SMALL = (
    *("--batch", "8", "--set", "projector=32,16", "--steps", "6", "--device", "cpu"),
    *("--implementation", "reference"),
)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pretrain.jsonl"
    done = call_lossbench("pretrain", "--loss", "smi,vicreg", *SMALL, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    return out


@pytest.fixture(scope="module")
def records(run_file):
    return [json.loads(line) for line in run_file.read_text().splitlines()[1:]]


def test_every_loss_has_a_record_that_adds_up(records):
    assert [record["loss"] for record in records] == ["smi", "vicreg"]
    for record in records:
        assert record["pass"] == "pretrain"
        assert record["steps"] == len(record["curve"]) == 6
        beside = ("samples_ms", "cpu_shares", "taken_shares")
        assert [len(record[name]) for name in beside] == [3, 3, 3]
        assert 0 <= record["disturbed"] <= 3
        assert record["images_per_s"] == pytest.approx(8 / record["step_ms"] * 1e3)
        parts = sum(record[f"{name}_ms"] for name in PHASES)
        assert parts == pytest.approx(record["step_ms"], rel=0.03)
        assert record["communication_ms"] == record["communicated_bytes"] == 0
        live = record["parameter_bytes"] + record["optimizer_bytes"] + record["gradient_bytes"]
        assert record["peak_bytes"] > live
        assert record["optimizer_bytes"] >= 2 * record["parameter_bytes"]
        assert record["activation_bytes"] > record["loss_bytes"] > 0
        told = [record[f"predicted_{part}_ms"] for part in PARTS]
        assert record["predicted_step_ms"] == pytest.approx(sum(told))
        assert record["predicted_peak_bytes"] == pytest.approx(record["peak_bytes"], rel=0.02)


def test_the_same_command_measures_nothing_again(run_file):
    before = run_file.read_bytes()
    done = call_lossbench("pretrain", "--loss", "smi,vicreg", *SMALL, "--out", str(run_file))
    assert done.returncode == 0
    assert run_file.read_bytes() == before


@pytest.mark.long
def test_features_are_judged_beside_the_untrained_encoders(tmp_path):
    from typer.testing import CliRunner

    out = tmp_path / "p.jsonl"
    for seed in ("0", "1"):
        options = ("--loss", "smi", *SMALL, "--set", f"seed={seed}", "--out", str(out))
        assert call_lossbench("pretrain", *options, "--evaluate").returncode == 0
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    for record in records:
        for judge in ("probe", "knn"):
            assert 0.1 < record[f"{judge}_accuracy"] < 1
            assert 0.1 < record[f"untrained_{judge}_accuracy"] < 1
    done = CliRunner().invoke(reports, ["table", "probe", str(out)])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    probes = [record["probe_accuracy"] for record in records]
    assert f"{sum(probes) / 2:.1%}" in done.output


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "latex", "terminal"])
def test_the_throughput_table(run_file, form):
    from typer.testing import CliRunner

    options = [] if form == "terminal" else ["--format", form]
    done = CliRunner().invoke(reports, ["table", "throughput", str(run_file), *options])
    assert done.exit_code == 0, done.output
    assert "EXTRAPOLATED" in done.output or form in ("csv", "json")
    if form == "terminal":
        assert max(map(len, done.output.splitlines())) <= 80


def test_the_figure_of_a_step_shows_the_loss_share(run_file, records, tmp_path):
    out = tmp_path / "step.svg"
    make_figure("step", [run_file], out)
    drawn = out.read_text()
    for record in records:
        assert f"{record['loss_share']:.1%}" in drawn
    for phase in ("encoder forward", "network backward", "loss backward"):
        assert phase in drawn


def test_every_phase_is_shown():
    names = {f"{name}_ms" for name in PHASES}
    assert set(throughput.PHASES) == set(step.STACK) == names


def test_amdahl_is_the_first_step_with_another_loss(run_file, records):
    sections = throughput.build(load([run_file]))
    (amdahl,) = (each for each in sections if each.title.startswith("Amdahl"))
    first, second = records
    parts = ("communication_ms", "loss_forward_ms", "loss_backward_ms")
    mine, theirs = (sum(record[name] for name in parts) for record in (first, second))
    expected = (first["step_ms"] - mine + theirs) / first["step_ms"]
    assert amdahl.frame["amdahl"].tolist()[1:] == pytest.approx([expected])
    assert amdahl.frame["measured"].tolist()[1:] == [second["step_ms"] / first["step_ms"]]
    assert "verdict" not in amdahl.columns  # they were not made in turn


@pytest.fixture(scope="module")
def paired_run(tmp_path_factory):
    """Steps of the same losses as in ``run_file``, in turn."""
    out = tmp_path_factory.mktemp("runs") / "paired.jsonl"
    chosen = ("pretrain", "--loss", "smi,vicreg", *SMALL, "--steps", "8", "--paired")
    chosen += ("--out", str(out))
    done = call_lossbench(*chosen)
    assert done.returncode == 0, done.stderr
    before = out.read_bytes()
    assert call_lossbench(*chosen).returncode == 0
    assert out.read_bytes() == before
    return out


@pytest.mark.long
def test_steps_in_turn_train_as_they_do_alone(paired_run, records):
    in_turn = [json.loads(line) for line in paired_run.read_text().splitlines()[1:]]
    assert [record["loss"] for record in in_turn] == ["smi", "vicreg"]
    for mine, alone in zip(in_turn, records, strict=True):
        assert mine["curve"][:6] == pytest.approx(alone["curve"], rel=1e-4)
        assert len(mine["samples_ms"]) == 5


@pytest.mark.long
def test_steps_in_turn_have_a_ratio_with_its_interval(paired_run, tmp_path):
    header, *lines = paired_run.read_text().splitlines()
    smi, vicreg = ({**json.loads(line), "disturbed": 0} for line in lines)  # however busy it was
    calm = tmp_path / "calm.jsonl"
    calm.write_text("".join(f"{line}\n" for line in (header, *map(json.dumps, (smi, vicreg)))))
    sections = throughput.build(load([calm]))
    (amdahl,) = (each for each in sections if each.title.startswith("Amdahl"))
    logs = np.log(np.divide(vicreg["samples_ms"], smi["samples_ms"]))
    trimmed = np.exp(stats.trim_mean(logs, 0.2))
    assert amdahl.frame["measured"].tolist()[1:] == pytest.approx([trimmed])
    assert amdahl.frame["between"].notna().sum() == 1
    assert "in turn" in amdahl.notes[0]


@pytest.mark.parametrize("options", [(), ("--paired",)])
def test_a_network_that_beats_the_ceilings_has_them_measured_again(tmp_path, monkeypatch, options):
    """It makes 50 images/s. The first calibration finds too little, the second enough."""

    def trained(config, plan, device, ceilings, *_):
        rate = {"images_per_s": 50.0}
        used = measuring.utilisation(config, rate, 1, ceilings)
        return {"status": "ok", "reason": "", **rate, **used}

    monkeypatch.setattr(training, "run", trained)
    monkeypatch.setattr(
        training, "run_in_turn", lambda configs, *how: [trained(each, *how) for each in configs]
    )
    found = [Ceilings({"float32": rate}, [(1, rate)], 1.0) for rate in (1e-3, 1e6)]
    monkeypatch.setattr(job, "calibrate", lambda *_: found.pop(0))
    out = tmp_path / "p.jsonl"
    chosen = ("pretrain", "--loss", "smi,vicreg", *SMALL, *options, "--out", str(out))
    done = call_lossbench(*chosen, "--json")
    assert done.returncode == 0, done.stderr
    assert not found
    assert done.stderr.count("beats the ceilings") == 1
    header, *records = map(json.loads, out.read_text().splitlines())
    assert records == json.loads(done.stdout)
    assert header["calibration"]["gemm_gflops"] == {"float32": 1e-3}
    assert [record.get("calibration", {}).get("launch_us") for record in records] == [1.0, None]
    for record in records:
        reached = 2 * record["network_macs_per_image"] * 50 / 1e9
        assert record["mfu"] == pytest.approx(reached / 1e6)
        assert record["ceiling_raised"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--paired", "--evaluate"), "leave --launcher, --checkpoint, --evaluate"),
        (("--paired", "--steps", "7"), "--paired needs 8 steps or more, got 7"),
        (("--preset", "digit"), "did you mean 'digits'"),
        (("--loss", "smo"), "did you mean 'smi'"),
        (("--loss", "smi,smi"), "given twice"),
        (("--batch", "-3"), "a batch of at least 2 images on each device, got -3"),
        (("--batch", "4000"), "lower the batch"),
        (("--data", "nothing"), "unknown"),
        (("--data", "imagefolder:/nowhere"), "/nowhere"),
        (("--set", "encoder=resnet19"), "did you mean 'resnet18'"),
        (("--set", "vicreg.variance=2"), "vicreg is not pretrained here"),
        (("--set", "loss=vicreg"), "give --loss, and once"),
        (("--set", "batch=8", "--batch", "4"), "give --batch, and once"),
        (("--set", "rate_scaled_by=-3"), "rate_scaled_by must be 0 or more"),
        (("--set", "seed=-1"), "seed must be from 0"),
        (("--set", "smi.gram.side=2"), "smi.gram is not pretrained here"),
        (("--on-nan", "halt"), "known: "),
        (("--steps", "-1"), "--steps must be 1 or more"),
    ],
)
def test_bad_input_is_one_line(tmp_path, options, said):
    out = tmp_path / "p.jsonl"
    loss = () if "--loss" in options else ("--loss", "smi")
    done = call_lossbench("pretrain", *loss, *options, "--device", "cpu", "--out", str(out))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr


def test_settings_of_a_loss_are_its_alone(tmp_path):
    out = tmp_path / "p.jsonl"
    own = ("--set", "smi.dependency=correlation", "--set", "smi.chunked.workspace_bytes=65536")
    chosen = ("--loss", "smi,vicreg", *SMALL, "--implementation", "chunked", "--steps", "1")
    done = call_lossbench("pretrain", *chosen, *own, "--out", str(out))
    assert done.returncode == 0, done.stderr
    smi, vicreg = (json.loads(line) for line in out.read_text().splitlines()[1:])
    assert (smi["variant"], vicreg["variant"]) == ("dependency=correlation", "")
    assert (smi["options"], vicreg["options"]) == ("workspace_bytes=65536", "")


def test_a_corrupt_image_is_skipped_counted_and_named(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    corrupt = tmp_path / "images" / "a" / "3.png"
    corrupt.write_bytes(corrupt.read_bytes()[:100])
    data = ("--data", f"imagefolder:{tmp_path / 'images'}", "--out", str(tmp_path / "p.jsonl"))
    done = call_lossbench("pretrain", "--loss", "smi", *SMALL, *data)
    assert done.returncode == 0, done.stderr
    assert "1 image(s) could not be read" in done.stdout
    assert corrupt.name in done.stdout
    (record,) = load([tmp_path / "p.jsonl"]).to_dict("records")
    assert "disturbed" not in record or record["disturbed"] != record["disturbed"]  # nan: not known


def test_presets_are_listed():
    done = call_lossbench("pretrain", "--preset", "list")
    assert done.returncode == 0
    assert "imagenet-300ep" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("on_nan", ["stop", pytest.param("skip", marks=pytest.mark.long)])
def test_a_loss_that_is_not_finite(tmp_path, on_nan):
    """A rate of 1e30 leaves no finite weight; that is recorded, and the other loss is trained."""
    options = ("--set", "learning_rate=1e30", "--set", "warmup_epochs=0", "--on-nan", on_nan)
    place = ("--out", str(tmp_path / "p.jsonl"), "--checkpoint", str(tmp_path), "--every", "1")
    done = call_lossbench("pretrain", "--loss", "vicreg,smi", *SMALL, *options, *place)
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()[1:]]
    assert [record["status"] for record in found] == ["invalid"] * 2
    for record in found:
        assert record["curve"].count(None) > 0
        if on_nan == "stop":
            assert f"is nan at step {record['steps'] - 1}" in record["reason"]
            assert "no good checkpoint was kept" in record["reason"]  # all had such weights
            assert record["reason"] in " ".join(done.stdout.split())
        else:
            assert record["steps_skipped"] == record["curve"].count(None)


@pytest.mark.long
def test_a_run_too_short_to_be_timed_leaves_a_file_that_can_be_read(tmp_path):
    out = tmp_path / "p.jsonl"
    short = call_lossbench("pretrain", "--loss", "smi", *SMALL, "--steps", "2", "--out", str(out))
    assert short.returncode == 0
    assert "not timed" in short.stdout
    done = call_lossbench("pretrain", "--loss", "smi", *SMALL, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert load([out])["median_ms"].notna().tolist() == [False, True]


def test_what_comes_to_nothing_is_said_before_training(tmp_path):
    """Labels that are not there; a folder that is a file; a checkpoint that is further."""
    start = ("pretrain", "--loss", "smi", *SMALL)
    (tmp_path / "file").write_text("")
    kept = ("--checkpoint", str(tmp_path))
    assert call_lossbench(*start, *kept, "--out", str(tmp_path / "a.jsonl")).returncode == 0
    for options, said in (
        (("--data", "synthetic", "--evaluate"), "has no labels"),
        (("--checkpoint", str(tmp_path / "file")), "cannot be made"),
        (("--steps", "5", *kept), "at step 6 already"),
    ):
        done = call_lossbench(*start, *options, "--out", str(tmp_path / "b.jsonl"))
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert said in done.stderr
