"""What a case is counted to do, and what that should take on a device whose ceilings are known."""

import contextlib
from typing import Any

from lossbench.bench.cases.case import Case, input_bytes
from lossbench.bench.cases.contenders import is_foreign
from lossbench.bench.counting.counting import examine, executed
from lossbench.bench.counting.work import followed, work
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.predict import predict_times


def count_and_predict(case: Case, ceilings: Ceilings | None) -> dict[str, Any]:
    """Count a case, and predict what its operations take.

    Args:
        case: what to count.
        ceilings: of the device that the case is for; None: nothing is predicted.

    Returns:
        The fields of ``counting.count``, those of ``predict_times``, and ``ceiling_ms``, below
        which no time can be.
    """
    counted = examine(case)
    if ceilings is None:
        return counted.fields
    fields, done = dict(counted.fields), counted.source
    floor_ms = ceilings.floor_ms(done.traces[-1], counted.least_macs, input_bytes(case))
    # the compiler cannot be asked here, or what it says of code that is not ours is not understood
    with contextlib.suppress(Exception if is_foreign(case) else NotImplementedError):
        if followed(case).implementation == "compiled":
            done = work(followed(case))
            fields |= executed(done)
        fields |= predict_times(done, ceilings)
    return {**fields, "ceiling_ms": floor_ms}
