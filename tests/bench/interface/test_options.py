"""Options of implementations: they reach one implementation, and its counts follow them."""

import json

import pytest
from command_line import call_lossbench

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.selection import select_cases
from lossbench.bench.counting.counting import count
from lossbench.bench.interface.parsing import parse_numbers

CHUNKED = [name for name in losses.names() if "chunked" in losses.spec(name).implementations]
SHAPES = [(50, 20), (20, 50), (32, 32), (7, 5), (2, 1)]
WORKSPACES = [1024, 4096, 2**20]


def count_as_json(*arguments):
    result = call_lossbench("count", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return {record["implementation"]: record for record in json.loads(result.stdout)}


def test_an_option_reaches_only_the_implementation_it_names():
    settings = {"smi.chunked.workspace_bytes": 4096, "smi.lambda_": 2}
    shape = {"loss": ["smi", "vicreg"], "batch": [8], "dim": [16], "device": "cpu"}
    cases = select_cases(**shape, settings=settings)
    for case in cases:
        chunked = (case.loss, case.implementation) == ("smi", "chunked")
        assert case.options == ({"workspace_bytes": 4096} if chunked else {})
        assert case.hyperparameters == ({"lambda_": 2} if case.loss == "smi" else {})


def test_an_option_is_part_of_the_row_and_changes_only_its_counts():
    shape = ["--loss", "smi", "--batch", "50", "--dim", "16"]
    usual = count_as_json(*shape)
    small = count_as_json(*shape, "--set", "smi.chunked.workspace_bytes=4096")
    assert small["chunked"]["options"] == "workspace_bytes=4096"
    assert small["chunked"]["macs"] != usual["chunked"]["macs"]
    assert small["chunked"]["counts_agree"]
    for name in ("reference", "gram", "compiled"):
        assert small[name] == usual[name]


def test_a_setting_may_be_given_again():
    shape = ["--loss", "smi", "--implementation", "gram", "--batch", "8", "--dim", "16"]
    together, apart = (
        count_as_json(*shape, *(part for text in texts for part in ("--set", text)))
        for texts in (["smi.lambda_=2,smi.eps=0.1"], ["smi.lambda_=2", "smi.eps=0.1"])
    )
    assert together == apart
    assert together["gram"]["variant"] == "eps=0.1,lambda_=2"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, []),
        ("8..1024", [8, 16, 32, 64, 128, 256, 512, 1024]),
        ("1..1", [1]),
        ("3,1..4,8", [3, 1, 2, 4, 8]),
        (" 2 .. 4 ", [2, 4]),
    ],
)
def test_a_range_is_of_powers_of_two(text, numbers):
    assert parse_numbers("--world", text) == numbers


@pytest.mark.parametrize(
    "text",
    ["", "8..", "..8", "8...64", "6..12", "8..100", "64..8", "0..8", "-8..8", "8..x", "1,,2"],
)
def test_a_range_that_is_none_is_one_line(text):
    with pytest.raises(ValueError, match=r"--world needs whole numbers|a list is written"):
        parse_numbers("--world", text)


@pytest.mark.parametrize("loss", CHUNKED)
@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_counts_agree_for_any_workspace(loss, pass_, workspace, batch, dim):
    options = {"workspace_bytes": workspace}
    case = Case(loss, "chunked", batch=batch, dim=dim, pass_=pass_, options=options)
    counted = count(case)
    assert counted["counts_agree"], counted["counts_note"]


@pytest.mark.parametrize("loss", losses.names())
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_auto_says_what_it_chose_and_why(loss, batch, dim):
    counted = count(Case(loss, "auto", batch=batch, dim=dim))
    assert counted["chosen"] in set(losses.spec(loss).cost_models) - {"compiled"}
    assert counted["chosen_because"].startswith("least work of what fits in ")
    assert counted["counts_agree"]
    chosen = count(Case(loss, counted["chosen"], batch=batch, dim=dim))
    assert chosen["chosen_because"] == "as asked for"
    for name in ("macs", "saved_bytes", "off_diagonal_entries"):
        assert counted[name] == chosen[name]


@pytest.mark.parametrize("loss", losses.names())
def test_auto_weighs_the_memory_that_it_is_given(loss):
    shape = {"batch": 512, "dim": 512}
    plenty, little = (
        count(Case(loss, "auto", **shape, options={"memory_bytes": memory}))
        for memory in (2**40, 1)
    )
    assert plenty["chosen_because"] == "least work of what fits in 1.1e+03 GB"
    assert little["chosen_because"] == "nothing fits in 1e-09 GB; this needs least"
    needs = {
        name: Case(loss, name, **shape).cost.peak_elements for name in losses.spec(loss).cost_models
    }
    assert needs[little["chosen"]] == min(needs.values())
