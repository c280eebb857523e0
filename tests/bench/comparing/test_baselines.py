"""Which ratios of a group there are: those that tables show."""

import pytest

from lossbench.bench.comparing.baselines import baseline, comparisons


def record(loss, implementation, ms=1.0, variant="", contender=""):
    return {
        **{"loss": loss, "implementation": implementation, "variant": variant},
        **{"distribution": "local", "median_ms": ms, "contender": contender},
    }


VICREG = [record("vicreg", "reference", 9.0), record("vicreg", "gram", 2.0)]
SMI = [record("smi", "reference", 8.0), record("smi", "gram", 3.0), record("smi", "chunked", 4.0)]


def test_an_implementation_is_compared_with_the_reference_of_its_loss():
    group = [*VICREG, *SMI]
    assert [baseline(group, i) for i in range(5)] == [None, 0, None, 2, 2]


@pytest.mark.parametrize("group", [[VICREG[0], SMI[0]], [VICREG[1], SMI[1]]])
def test_references_alone_and_none_at_all_are_compared_with_the_first(group):
    assert [baseline(group, i) for i in range(2)] == [None, 0]


def test_other_hyperparameters_are_another_reference():
    other = record("smi", "gram", variant="lambda_=2.0")
    assert baseline([*SMI, other], 3) is None
    own = record("smi", "reference", variant="lambda_=2.0")
    assert baseline([*SMI, other, own], 3) == 4


def test_all_are_compared_with_the_reference_of_smi_and_with_its_best():
    group = [*VICREG, *SMI]
    found = comparisons(group)
    assert {(i, 2) for i in (0, 1, 3, 4)} <= found
    assert {(i, 3) for i in (0, 1, 2, 4)} <= found
    assert found - {(i, base) for i in range(5) for base in (2, 3)} == {(1, 0)}


def test_the_best_of_smi_is_so_by_its_usual_hyperparameters():
    """As we make it: not a third party's."""
    other = record("smi", "gram", 1.0, variant="lambda_=2.0")
    theirs = record("smi", "theirs", 1.0, contender="a:b")
    found = comparisons([VICREG[1], *SMI, other, theirs])
    assert {base for i, base in found if i == 0} == {1, 2}


def test_a_third_party_is_compared_with_the_best_of_ours():
    theirs = record("vicreg", "theirs", 1.0, contender="a:b")
    assert (2, 1) in comparisons([*VICREG, theirs])


def test_nothing_is_compared_with_itself():
    assert comparisons([SMI[0]]) == set()
