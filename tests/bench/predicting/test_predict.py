"""Predictions: datasheets, bad ones, communication, and the command line."""

import json

import pytest
from command_line import call_lossbench

from lossbench.bench.cases.case import Case
from lossbench.bench.interface import display
from lossbench.bench.predicting import gpus
from lossbench.bench.predicting.devices import choose
from lossbench.bench.predicting.links import Link
from lossbench.bench.predicting.predict import Device, Predictor, predict_communication

ISSUE = {
    "a100-40", "a100-80", "h100-sxm", "h100-pcie", "h200", "b200", "l40s", "rtx4090", "rtx5090",
    "mi300x",
}  # fmt: skip
SHEET = {
    "memory_gb": 10,
    "bandwidth_gb_per_s": [500, "measured"],
    "link_gb_per_s": 20,
    "tflops": {"float32": 10},
}


def device(sheet):
    return Device(sheet.name, sheet.title, sheet.memory_bytes, sheet.ceilings, "")


def test_the_gpus_of_the_table():
    assert set(gpus.names()) == ISSUE


def test_every_figure_has_a_source():
    table = json.loads(gpus.TABLE.read_text())
    for name, fields in table["gpus"].items():
        figures = [fields[key] for key in ("memory_gb", "bandwidth_gb_per_s", "link_gb_per_s")]
        for value, source in (*figures, *fields["tflops"].values()):
            assert value > 0, name
            assert source in table["documents"], name
    for value, source in table["links_us"].values():
        assert value > 0
        assert source in table["documents"]
    assert {*table["links_us"]} == {*table["links_gb_per_s"], gpus.OWN_LINK}


@pytest.mark.parametrize("name", sorted(ISSUE))
def test_tensor_cores_are_no_slower_than_fp32(name):
    rates = gpus.gpu(name).tflops
    assert rates["float32"] <= rates["tf32"] <= rates["bfloat16"] == rates["float16"]


def damaged(**changes):
    fields = {**SHEET, **changes}
    return {"gpus": {"mine": {k: v for k, v in fields.items() if v is not None}}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (damaged(memory_gb=None), "mine: memory_gb must be a number"),
        (damaged(memory_gb="10"), "mine: memory_gb must be a number"),
        (damaged(memory_gb=True), "mine: memory_gb must be a number"),
        (damaged(memory_gb=-1), "mine: memory_gb must be above 0, got -1"),
        (damaged(bandwidth_gb_per_s=[0, "x"]), "bandwidth_gb_per_s must be above 0"),
        (damaged(bandwidth_gb_per_s=float("nan")), "NaN is not a number"),
        (damaged(bandwidth_gb_per_s=1e300), "bandwidth_gb_per_s is in other units"),
        (damaged(memory_gb=10**400), "out of range"),
        (damaged(memory_gb=1e-9), "memory_gb is in other units"),
        (damaged(title={}), "a name and a title of one line"),
        ({"gpus": {"": damaged()["gpus"]["mine"]}}, "a name and a title of one line"),
        (damaged() | {"links_gb_per_s": [1]}, "links_gb_per_s must be an object"),
        (damaged() | {"links_gb_per_s": {"mylink": 0}}, "mylink must be above 0"),
        (damaged(link_gb_per_s=[]), "link_gb_per_s must be a number"),
        (damaged(tflops={}), "tflops must name at least one"),
        (damaged(tflops={"float31": 1}), "float31.*did you mean 'float32'"),
        (damaged(tflops={"float32": -3}), "float32 must be above 0"),
        ({"gpus": {"mine": 3}}, "mine must be an object"),
        ({"gpus": {}}, "must hold"),
        ([], "not a JSON object"),
    ],
    ids=str,
)
def test_a_bad_datasheet_is_named(tmp_path, content, said):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        choose([], path, "", "cuda")


def test_a_deeply_nested_file_is_no_datasheet(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        gpus.read(path)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    sheet = json.dumps(SHEET)
    path.write_text(f'{{"gpus": {{"mine": {sheet}, "mine": {sheet}}}}}')
    with pytest.raises(ValueError, match="twice"):
        gpus.read(path)


def test_a_name_of_the_table_is_not_taken_again(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"gpus": {"h200": SHEET}}))
    assert [each.name for each in choose([], path, "", "cuda")] == ["h200"]
    with pytest.raises(ValueError, match="another GPU 'h200'"):
        choose(["h200"], path, "", "cuda")


def test_gpus_are_named_once_and_all_is_all():
    assert [each.name for each in choose(["h200", "h200"], None, "", "cuda")] == ["h200"]
    assert len(choose(["h200", "all"], None, "", "cuda")) == len(gpus.names())
    told = call_lossbench("predict", "--loss", "smi", "--gpu", ",")
    assert "--gpu: a list is written a,b,c" in told.stderr


def test_ones_own_links(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"gpus": {"mine": SHEET}, "links_gb_per_s": {"string": 0.5}}))
    assert choose([], path, "string", "cuda")[0].link == Link(0.5, 0.5, 0.0)
    table = {"gpus": {"mine": SHEET}, "links_gb_per_s": {"string": 0.5}, "links_us": {"string": 9}}
    path.write_text(json.dumps(table))
    assert choose([], path, "string", "cuda")[0].link == Link(0.5, 0.5, 9.0)
    assert choose(["h200"], None, "nvlink", "cuda")[0].link == Link(450, 450, 3.4)
    with pytest.raises(ValueError, match="unknown link 'string'"):
        choose(["h200"], None, "string", "cuda")


def test_a_precision_without_a_rate_is_named():
    case = Case("smi", batch=64, dim=128, dtype="float64", device="cuda")
    found = Predictor().predict(case, device(gpus.gpu("l40s")))
    assert "no rate of float64 products is known" in found["reason"]


def test_no_number_and_no_name_is_cut_in_the_terminal(capsys):
    """Of many devices and a link, whose numbers are wide."""
    case = Case(
        "smi", "triton", batch=16384, dim=2048, dtype="bfloat16", device="cuda", world=64,
        distribution="gather", options={"strategy": "fused"},
    )  # fmt: skip
    devices = choose(["rtx4090"], None, "ib400", "cuda")
    display.predictions([Predictor().predict(case, each) for each in devices], devices)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\u2026" not in "".join(lines)
    assert any("smi triton" in line for line in lines)
    assert any("1048576 x 2048" in line for line in lines)


def test_a_file_that_is_no_datasheet(tmp_path):
    path = tmp_path / "mine.json"
    with pytest.raises(ValueError, match="cannot be read"):
        gpus.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        gpus.read(path)


def test_ones_own_datasheet(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"gpus": {"mine": SHEET}}))
    (mine,) = gpus.read(path)
    assert mine.memory_bytes == 10e9
    found = Predictor().predict(Case("smi", batch=64, dim=128, device="cuda"), device(mine))
    assert found["status"] == "ok"
    macs = 9 * 64**2 * 128
    assert found["predicted_compute_ms"] == pytest.approx(
        2 * macs / (10e12 * gpus.OF_COMPUTE) * 1e3
    )


@pytest.mark.parametrize("world", [2, 8, 64])
@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_a_gather_moves_every_other_devices_views(world, pass_):
    case = Case("nt_xent", batch=256, dim=512, world=world, distribution="gather", pass_=pass_)
    seconds = predict_communication(case, Link(1.0, 1.0))["communication_ms"] / 1e3
    there_and_back = 2 if pass_ == "step" else 1
    assert seconds == pytest.approx(there_and_back * (world - 1) * 256 * 512 * 2 * 4 / 1e9)
    local = Case("nt_xent", batch=256, dim=512, world=world, pass_=pass_)
    assert predict_communication(local, Link(1.0, 1.0))["communication_ms"] == 0


def test_auto_chooses_for_the_memory_of_that_gpu():
    case = Case("smi", "auto", batch=8000, dim=256, device="cuda")
    chosen = {}
    for name in ("rtx4090", "mi300x"):
        found = Predictor().predict(case, device(gpus.gpu(name)))
        chosen[name] = found["chosen"]
        assert found["fits"]
    assert chosen["rtx4090"] == "gram"
    small = gpus.Gpu("small", "small", 0.5e9, 1.0, 1.0, {"float32": 1.0})
    assert Predictor().predict(case, device(small))["chosen"] == "chunked"


def test_more_memory_fits_more():
    case = Case("smi", "gram", batch=64, dim=256, device="cuda")
    predictor = Predictor()
    names = sorted(gpus.names(), key=lambda name: gpus.gpu(name).memory_bytes)
    largest = [
        predictor.predict(case, device(gpus.gpu(name)))["predicted_largest_batch"] for name in names
    ]
    assert largest == sorted(largest)
    assert largest[0] < largest[-1]


def test_what_cannot_be_predicted_is_a_row_that_says_why():
    sheet = gpus.gpu("l40s")  # its datasheet says nothing of fp64
    case = Case("smi", batch=8, dim=16, dtype="float64", device="cuda")
    assert "float64" in Predictor().predict(case, device(sheet))["reason"]
    compiled = Case("smi", "compiled", batch=8, dim=16, device="cuda")
    assert Predictor().predict(compiled, device(sheet))["status"] == "unsupported"


def test_command_line(tmp_path):
    chosen = ["--loss", "smi", "--batch", "256", "--dim", "512", "--implementation", "gram,triton"]
    result = call_lossbench("predict", *chosen, "--gpu", "h200,rtx4090", "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["gpu"] for row in rows] == ["h200", "rtx4090"] * 2
    fast, slow = rows[0], rows[1]
    assert fast["predicted_memory_ms"] < slow["predicted_memory_ms"]
    assert fast["predicted_peak_bytes"] == slow["predicted_peak_bytes"]
    text = call_lossbench(
        "predict", *chosen, "--gpu", "all", "--link", "nvlink", "--world", "8",
        "--distribution", "gather",
    )  # fmt: skip
    assert text.returncode == 0, text.stderr
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert text.stdout.count("Assumed:") == len(ISSUE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h1000"], "unknown GPU 'h1000'"),
        (["--gpu", "h200", "--link", "string"], "unknown link"),
        (["--gpu", "h200", "--device", "cpu"], "--device"),
        (["--gpu-spec", "/nowhere.json"], "cannot be read"),
    ],
)
def test_bad_usage_is_one_line(arguments, said):
    result = call_lossbench("predict", "--loss", "smi", "--batch", "8", "--dim", "16", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
