"""Checkpoints: whole or not at all, and of this configuration or none."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lossbench.bench.interface.steps import Steps
from lossbench.bench.pretraining import checkpoint, session
from lossbench.bench.pretraining.checkpoint import CheckpointError

STATE = {"step": 3, "network": {"w": torch.arange(4.0)}}


def test_what_is_saved_is_loaded(small, tmp_path):
    path = tmp_path / "deep" / "a.pt"
    checkpoint.save(path, small(), 1, STATE)
    found = checkpoint.load(path, small(), 1, "cpu")
    assert found["step"] == 3
    assert torch.equal(found["network"]["w"], STATE["network"]["w"])
    assert [each.name for each in path.parent.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("changes", "world", "said"),
    [
        ({"batch": 16}, 1, r"batch \(8 there, 16 here\)"),
        ({"loss": "vicreg"}, 1, r"loss \('smi' there, 'vicreg' here\)"),
        ({"learning_rate": 0.5}, 1, "learning_rate"),
        ({}, 2, r"world \(1 there, 2 here\)"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(small, tmp_path, changes, world, said):
    path = tmp_path / "a.pt"
    checkpoint.save(path, small(), 1, STATE)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(path, small(**changes), world, "cpu")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_named(small, tmp_path, content):
    path = tmp_path / "a.pt"
    checkpoint.save(path, small(), 1, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read"):
        checkpoint.load(path, small(), 1, "cpu")


def test_on_a_full_disk_the_old_checkpoint_survives(small, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoint.save(path, small(), 1, STATE)

    def full(content, file):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*the one before is kept"):
        checkpoint.save(path, small(), 1, {"step": 4})
    monkeypatch.undo()
    assert checkpoint.load(path, small(), 1, "cpu")["step"] == 3
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.long
def test_killed_while_it_trains_a_run_goes_on_with_the_same_next_loss(tmp_path):
    """kill -9 at any moment, then the same command."""

    def command(folder):
        return [
            sys.executable, "-m", "lossbench", "pretrain", "--loss", "smi", "--implementation",
            "reference", "--steps", "12", "--batch", "8", "--set", "projector=32,16", "--every",
            "1", "--checkpoint", str(tmp_path / folder), "--out", str(tmp_path / f"{folder}.jsonl"),
            "--device", "cpu", "--json",
        ]  # fmt: skip

    def curve(folder):
        import json

        done = subprocess.run(command(folder), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]["curve"]

    path = tmp_path / "killed" / "smi-reference.pt"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command("killed"), **quiet) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    state = torch.load(path, weights_only=True)["state"]
    assert 0 < state["step"] < 12
    assert curve("killed") == curve("straight")


def test_of_weights_that_give_no_loss_the_checkpoint_before_is_the_last_good_one(small, tmp_path):
    plan = session.Plan(steps=8, checkpoint=tmp_path / "a.pt", every=2)
    going_on = session.begin(small(), plan, "cpu")
    seen = []  # of the second step twice: its memory is looked at

    def spoil(module, args, value):
        seen.append(value.item())
        return value * float("nan") if len(seen) == 6 else value

    going_on.trainer.loss.register_forward_hook(spoil)
    with pytest.raises(session.DivergedError, match=r"at step 4; the last good .* is .*a\.pt"):
        session.pretrain(going_on, Steps(quiet=True))
    # saved at steps 2 and 4, and the loss of step 4 is the one that was lost
    assert session.begin(small(), plan, "cpu").trainer.step == 2
