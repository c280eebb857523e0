"""How far paired timing can be believed: what is sampled, beside what, and what is kept."""

import time
from pathlib import Path

import pytest
from command_line import CEILINGS, assert_one_line_error, call_lossbench

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing import trust
from lossbench.bench.measuring import sessions
from lossbench.bench.measuring.sessions import SAMPLED, SESSIONS
from lossbench.bench.records.runfile import read
from lossbench.bench.running import neighbour
from lossbench.bench.running import noise as noise_module
from lossbench.bench.running.groups import PROCESSES
from lossbench.bench.running.sweep import open_run

CASE = Case("smi", batch=4, dim=8)


@pytest.mark.parametrize(
    ("comparisons", "processes"), [(1, 1), (SESSIONS, 1), (SESSIONS + 1, 2), (5 * SESSIONS, 5)]
)
def test_comparisons_share_processes_by_the_session(comparisons, processes):
    assert noise_module.processes(comparisons, "cpu") == processes * PROCESSES["cpu"]


def test_a_process_samples_every_call_of_every_session(monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS", 2)
    monkeypatch.setattr(sessions, "ROUNDS", 4)
    found = sessions.sessions(CASE, slowdown=0.15)
    assert found["status"] == "ok"
    for name in SAMPLED:
        assert len(found[name]) == 2 * 4
        assert min(found[name]) > 0


def test_what_is_sampled_is_what_is_judged():
    assert tuple(trust.CALLS.values()) == SAMPLED


def test_a_slowed_copy_takes_its_share_longer():
    spent = []

    def call():
        start = time.perf_counter()
        time.sleep(0.01)
        spent.append(time.perf_counter() - start)
        return "result"

    start = time.perf_counter()
    assert sessions._slowed(call, 0.5)() == "result"
    assert time.perf_counter() - start >= 1.5 * spent[0]


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """``sample`` with a worker that does nothing, in a run file; and what was asked for."""
    asked = []

    class FakeWorker:
        def __init__(self, device):
            pass

        def sample_noise(self, case, slowdown, timeout_s):
            asked.append((case.label, slowdown))
            times = {name: [1.0] * SESSIONS * sessions.ROUNDS for name in SAMPLED}
            return {"status": "ok", "reason": "", "disturbed": 0, **times}

        def stop(self):
            pass

    monkeypatch.setattr(noise_module, "Worker", FakeWorker)

    def sample(comparisons=1, slowdown=0.15, neighbour=False):
        path = tmp_path / "noise.jsonl"
        writer, _ = open_run(path, "cpu", calibration=CEILINGS.describe, is_alone=False)
        with writer:
            how = (comparisons, slowdown, neighbour, 60.0, writer)
            records = list(noise_module.sample(CASE, *how))
        assert {record["key"] for record in records} <= {r["key"] for r in read(path).records}
        return records, asked

    return sample


def test_every_process_is_a_record_that_is_kept_and_sampled_once(sampled):
    first, asked = sampled()
    assert len(first) == len(asked) == PROCESSES["cpu"]
    again, asked = sampled(comparisons=SESSIONS + 1)
    assert again[: len(first)] == first
    assert len(again) == len(asked) == 2 * PROCESSES["cpu"]
    assert [len(g) for g in trust.comparisons(again, PROCESSES["cpu"])] == [SESSIONS, SESSIONS]


def test_what_is_sampled_otherwise_is_kept_apart(sampled):
    sampled()
    assert len(sampled(slowdown=0.3)[1]) == 2 * PROCESSES["cpu"]
    records, asked = sampled(neighbour=True)
    assert len(asked) == 3 * PROCESSES["cpu"]
    assert all(record["noise_neighbour"] for record in records)


def test_a_neighbour_keeps_a_core_busy_half_of_the_time_and_is_gone_afterwards():
    def cpu_s(pid):
        user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / 100

    with neighbour.busy() as pid:
        before, start = cpu_s(pid), time.monotonic()
        time.sleep(6 * neighbour.BURST_S)
        share = (cpu_s(pid) - before) / (time.monotonic() - start)
    assert 0.1 < share < 0.9  # where other tests want the cores too
    with pytest.raises(FileNotFoundError):
        cpu_s(pid)


def test_a_case_that_fails_is_named_with_its_reason(tmp_path):
    case = Case("barlow_twins", "own", batch=4, dim=8, contender="third_party:raises")
    path = tmp_path / "noise.jsonl"
    writer, _ = open_run(path, "cpu", calibration=CEILINGS.describe, is_alone=False)
    with (
        writer,
        pytest.raises(RuntimeError, match=r"barlow_twins-own-4x8.*there is no loss"),
    ):
        next(noise_module.sample(case, 1, 0.15, False, 60, writer))


@pytest.mark.parametrize(
    "bad", [("--comparisons", "0"), *(("--slowdown", x) for x in ("0", "-1", "nan", "inf"))]
)
def test_a_comparison_that_cannot_be_made_is_refused(bad):
    assert_one_line_error(call_lossbench("noise", "--loss", "smi", *bad), "--comparisons from 1")


def test_a_share_of_several_devices_is_refused():
    share = ("--loss", "smi", "--implementation", "auto", "--world", "2", "--distribution", "gram")
    assert_one_line_error(call_lossbench("noise", *share), "leave --distribution out")


def test_a_case_that_fails_is_said_and_the_others_go_on(tmp_path, monkeypatch):
    def sample(case, *_):
        if case.loss == "smi":
            raise RuntimeError("smi-reference: not finished after 1 s")
        yield {"noise_processes": 5, "noise_neighbour": False, "noise_slowdown": 0.1} | {
            "noise_rounds": 4,
            **{field: [1.0] * 40 for field in SAMPLED},
        }

    monkeypatch.setattr(noise_module, "sample", sample)
    small = ("--implementation", "reference", "--batch", "4", "--dim", "8")
    out = ("--out", str(tmp_path / "noise.jsonl"))
    done = call_lossbench("noise", "--loss", "smi,vicreg", *small, *out)
    assert done.returncode == 1
    assert "smi-reference: not finished after 1 s" in done.stderr
    assert done.stdout.startswith("vicreg-reference-4x8")
