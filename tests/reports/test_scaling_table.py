"""Measured and predicted steps of several processes: every number worked by hand."""

import pytest
from made_up import case, lossreport, measured

from lossbench.reports.records import load
from lossbench.reports.tables import scaling

MEASURED = {
    **{"data_ms": 1.0, "augmentation_ms": 2.0, "encoder_forward_ms": 30.0, "backward_ms": 60.0},
    **{"projector_forward_ms": 10.0, "optimizer_ms": 10.0, "loss_forward_ms": 4.0},
    **{"loss_backward_ms": 6.0, "communication_ms": 0.0, "step_ms": 123.0},
}
PREDICTED = {"network": 50.0, "optimizer": 5.0, "loss": 5.0}


def run(world, distribution, predicted, **changes):
    """A made-up run of pretraining."""
    settings = {"encoder": "resnet18", "image_size": 8, "projector": [16], "precision": "fp32"}
    settings |= {"augmentation": "digits", "data": "digits", "optimizer": "adamw"}
    told = {"communication": 0.0, "gradient_reduction": 0.0, **PREDICTED, **predicted}
    fields = {f"predicted_{name}_ms": ms for name, ms in told.items()}
    return case(
        f"{world} {distribution}", "gram", **measured(1.0, **{"pass": "pretrain"}),
    ) | MEASURED | fields | {
        **{f"pretrain_{name}": value for name, value in settings.items()},
        **{"world": world, "distribution": distribution, "pass": "pretrain", "pair_group": None},
        **{"predicted_step_ms": sum(told.values()), "chosen": "gram", **changes},
    }  # fmt: skip


@pytest.fixture
def runs(write_run):
    """One process, and two of which each takes half as long again and sends for a while."""
    alone = run(1, "local", {})
    slower = {"network": 75.0, "loss": 10.0, "communication": 8.0, "gradient_reduction": 12.0}
    longer = {"encoder_forward_ms": 60.0, "communication_ms": 10.0, "gradient_reduction_ms": 30.0}
    longer["step_ms"] = 3.0 + 60 + 10 + 60 + 10 + 4 + 6 + 10 + 30
    together = run(2, "gather", slower, **longer)
    return [
        write_run([record], f"{number}.jsonl") for number, record in enumerate((alone, together))
    ]


def test_measured_beside_predicted_by_hand(runs):
    times, shares = scaling.build(load(runs))
    (two, one) = times.frame.to_dict("records")
    assert (one["world"], two["world"]) == (1, 2)
    assert one["step"] == 30 + 10 + 60 + 10 + 4 + 6
    assert one["ceilings"] == 60
    assert one["ceilings_ratio"] == pytest.approx(60 / 120)
    assert one["from_one"] == pytest.approx(one["step"])
    assert two["step"] == 120 + 30 + 10 + 30
    assert two["ceilings"] == 75 + 5 + 10 + 8 + 12
    # network 1.5 times, loss twice as long as one process took for it
    whole = 100 * 1.5 + 10 + 10 * 2 + 8 + 12
    assert two["from_one"] == pytest.approx(whole)
    (two, one) = shares.frame.to_dict("records")
    assert two["loss_share"] == pytest.approx((4 + 6 + 10) / 190)
    assert two["told_loss_share"] == pytest.approx((20 + 8) / whole)
    assert two["sent_share"] == pytest.approx(40 / 190)
    assert two["told_sent_share"] == pytest.approx(20 / whole)
    assert two["efficiency"] == pytest.approx(120 / 190)
    assert two["told_efficiency"] == pytest.approx(120 / whole)
    assert one["told_efficiency"] == pytest.approx(1)


def test_in_the_terminal(runs):
    done = lossreport("table", "scaling", *runs)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("Scaling") == 2


def test_without_a_run_of_one_process_nothing_is_told_from_it(runs):
    done = lossreport("table", "scaling", runs[1])
    assert done.returncode == 0, done.stderr
    assert "efficiency" not in done.stdout.split("Predicted from")[0].splitlines()[1]


def test_runs_without_predictions_are_one_line(write_run):
    record = {k: v for k, v in run(1, "local", {}).items() if not k.startswith("predicted")}
    done = lossreport("table", "scaling", write_run([record]))
    assert done.returncode == 2
    assert "measure anew" in done.stderr
