"""What may stand in a line of a run file: JSON that says one thing, and fields of the right kind.

Fields that are not named here are kept as they are. A field that is null counts as missing.
"""

import json
import math
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any

from lossbench.bench.records.kinds import (
    AMOUNT,
    CEILINGS,
    COUNT,
    DISTRIBUTION,
    FACTS,
    FLAG,
    LARGE_COUNT,
    LINE,
    NAME,
    NUMBER,
    PASS,
    SAMPLES,
    SHARES,
    SIGNS,
    STATUS,
    TEXT,
    TIME,
    WHOLE,
    Kind,
    each,
)

HEADER: dict[str, Kind] = {
    **each(WHOLE, schema="version of this form"),
    **each(FACTS, environment="hardware and software, below"),
    **each(
        TEXT,
        environment_hash="short hash of the environment",
        code_hash="short hash of the code that decides what a record says",
    ),
    **each(LINE, created="when the run was begun (UTC)", git_commit="commit of the code"),
    **each(FLAG, git_dirty="whether files differed from that commit"),
    **each(CEILINGS, calibration="what the device reached before anything was measured"),
    **each(SIGNS, spin="how busy the machine was before anything was measured, by a short test"),
}
FACT: dict[str, Kind] = {
    **each(
        LINE,
        device="cpu or cuda",
        cpu="name of the processor",
        gpu="name of the GPU",
        torch="version of PyTorch",
    ),
    **each(COUNT, threads="CPU threads of torch", processes="processes of a job"),
    **each(FLAG, interpreted="kernels ran in Triton's interpreter: their times mean nothing"),
}
CASE: dict[str, Kind] = {
    **each(
        NAME,
        loss="name of the loss",
        implementation="how it is computed",
        dtype="of the embeddings",
        inputs="where the embeddings come from",
    ),
    **each(PASS, **{"pass": "forward, forward with its graph, a step, pretraining, or noise"}),
    **each(DISTRIBUTION, distribution="how devices share the loss"),
    **each(COUNT, batch="samples per device, N", dim="embedding dimension, D", world="devices, W"),
}
"""What a report must know of a record."""
_ACCURACY = {
    f"accuracy_{kind}_{what}_error{suffix}": f"relative error of the {what} on {kind} inputs{words}"
    for kind in ("random", "aligned", "collapsed")
    for what in ("value", "gradient")
    for suffix, words in (("", ""), ("_to_reference", ", times that of the reference"))
}
ACCURACY = tuple(_ACCURACY)
RECORD: dict[str, Kind] = {
    **each(TEXT, key="content key: the case, the code and the environment"),
    **each(STATUS, status="how the case ended"),
    **CASE,
    **each(LARGE_COUNT, loss_batch="samples that one evaluation of the loss is given"),
    **each(
        COUNT,
        evaluations="independent evaluations that all devices make together",
        pair_processes="fresh processes that cases were timed in turn in",
        pair_looks="most looks that a verdict of it can have had: claims rest on 1 - 0.005 / that",
        processes="processes that measured it together",
        moments="at which a case that was timed alone was sampled, as often at each",
    ),
    **each(
        LINE,
        variant="hyperparameters that are not as published",
        options="options of the implementation that are not its defaults",
        products="precision of matrix products, if not the implementation's own",
        contender="where a third party's implementation is found",
        origin="where a guest is found, a loss that is none of ours",
        device="cpu or cuda",
        hyperparameters="all of them",
        title="of the loss",
        chosen="the implementation that ran, where auto chose it",
        contender_version="version of its package",
        works_within="what may surround a loss, and within which it gave the same",
        judged_by="implementation that, in fp64, it is compared with",
        parity="what a third party's loss equals, or how a guest was checked",
        inputs_id="seed of the inputs and the kind of device that made them, or hash of their file",
        predicted_bound="what most of the predicted time goes to: compute, memory or launch",
        throttled="why the GPU lowered its clocks",
    ),
    **each(
        TEXT,
        reason="why it is not ok, or not verified",
        uncounted="operations whose arithmetic is not counted",
        accuracy="ok, or why errors were not measured",
        pair_group="cases with the same one were timed in turn",
    ),
    **each(
        TIME,
        median_ms="median time of a call",
        p20_ms="20th percentile",
        p80_ms="80th percentile",
        call_ms="a single call, not the first unless that takes a second; on a GPU with launches",
        first_call_ms="the first call, which may compile code",
    ),
    **each(
        AMOUNT,
        macs="multiply-adds of all devices, 1 MAC = 2 FLOPs; null where some are not counted",
        macs_cost_model="of one evaluation, as the loss's cost model has them",
        macs_flop_counter="as torch's FlopCounterMode counts them",
        forward_macs_cost_model="of the forward pass, cost model",
        forward_macs_flop_counter="of the forward pass, by its operations; of a loss without a "
        "cost model",
        forward_macs_fvcore="of the forward pass, as fvcore counts them; null without fvcore",
        peak_bytes="most that the allocator held beyond the inputs",
        saved_bytes="kept from the forward to the backward pass",
        input_bytes="of what the loss is given: of most, both views",
        off_diagonal_entries="entries off the diagonal of the matrices that are formed",
        communicated_bytes="that each device sends, as the case is distributed",
        official_communicated_bytes="that each device sends in the loss's official code",
        gmacs="macs / 10^9",
        gflops="2 macs / 10^9",
        floor_ms="of the least matrix products, by the GPU's library",
        energy_mj="millijoules of a call",
        value_error="relative error of the value against fp64",
        gradient_error="relative error of the gradient against fp64",
        value_error_to_reference="value_error, times that of the reference",
        gradient_error_to_reference="gradient_error, times that of the reference",
        **_ACCURACY,
        elementwise="operations of one evaluation beside matrix products, but transcendentals",
        transcendentals="exponentials, logarithms, roots and the like of one evaluation",
        executed_macs="of all operations that ran, recomputation among them",
        moved_bytes="read and written by all operations",
        launches="operations, each of which is started once",
        ceiling_ms="no call can be faster on this device",
        fraction_of_ceiling="ceiling_ms / median_ms, or 1 if that is more",
        ceiling_raised="by how much it beat a ceiling, which was raised to it, as a fraction",
        mfu="of pretraining: the network's FLOP/s over the ceiling of its products, or 1",
        predicted_ms="predicted from the operations and the ceilings",
        predicted_compute_ms="arithmetic alone",
        predicted_memory_ms="bytes alone",
        predicted_launch_ms="starts alone",
        predicted_peak_bytes="predicted peak_bytes",
        predicted_largest_batch="largest N that should fit in the device's memory",
        memory_limit_bytes="of an emulated device",
        predicted_step_ms="a pretraining step",
        predicted_network_ms="its encoder and projector, forward and backward",
        predicted_loss_ms="its loss",
        predicted_optimizer_ms="its optimizer",
        predicted_communication_ms="what its loss sends",
        predicted_gradient_reduction_ms="what is left of adding up the gradients",
        communication_ms="what a call waited for other processes",
        drift="time in the last third of the rounds over that in the first, of all calls in turn",
        spin_slowdown="mean time of a small piece of parallel work over the best, tested beside it",
        spin_waited="share of that test in which threads waited for a core",
        spin_steal="share of that test in which a virtual machine's host took the cores",
        spin_pressure="share of that test in which something waited for a core",
        spin_switches="how often a second a thread left its core to another in that test",
    ),
    **each(
        NUMBER,
        value="of the loss",
        value_fp64="in double precision",
        scale="factor by which a third party's loss differs from ours",
    ),
    **each(
        FLAG,
        counts_agree="whether cost model, FlopCounterMode and, where it is installed, fvcore agree",
        gather_layer="whether the official code gathers other devices' embeddings",
        global_batch_norm="whether it normalises over all devices",
        pair_cut="timing in turn was stopped before its end",
        launched_ahead="the GPU had all of a call's work before its clock started",
    ),
    **each(CEILINGS, calibration="the best ceilings then, measured again as this result beat them"),
    **each(
        SAMPLES,
        samples_ms="every sample, in the order in which they were taken",
        control_ms="samples of the same case once more in the same rounds: what differs is noise",
        again_ms="of noise: the same once more, as what is compared",
        slowed_ms="of noise: those of a copy that is slowed down",
    ),
    **each(
        SHARES,
        cpu_shares="CPU time over wall time beside each sample; coarse below 10 ms; not on a GPU",
        taken_shares="share of each sample that was taken away from it; not of cases in turn",
    ),
    **each(PASS, noise_pass="of noise: the pass that is compared with itself"),
    **each(
        COUNT,
        noise_rounds="of noise: rounds of a comparison in one process, one after the other",
        noise_processes="of noise: processes of a comparison",
    ),
    **each(FLAG, noise_neighbour="of noise: another program kept a core busy half of the time"),
    **each(AMOUNT, noise_slowdown="of noise: share of its time that the slowed copy takes more"),
    **each(
        WHOLE,
        disturbed="samples during which other work, or a pause of the machine, took the CPU away",
        retaken="visits that were disturbed and taken again",
    ),
}
MEASURED = ("median_ms", "p20_ms", "p80_ms", "peak_bytes")
"""What a record that is ok cannot lack, unless it is of noise, or of pretraining: few steps are not
timed."""
COUNTED = ("macs",)
"""And what it cannot lack unless it says which operations are not counted."""


def problem(
    content: Mapping[str, Any], kinds: Mapping[str, Kind], needed: Iterable[str] = ()
) -> str | None:
    """What is wrong with the first field that is needed and missing, or is not of its kind."""
    for name in needed:
        if content.get(name) is None:
            return f"{name} must be {kinds[name].says}, got 'nothing'"
    for name, kind in kinds.items():
        value = content.get(name)
        if value is not None and not kind.holds(value):
            return f"{name} must be {kind.says}, got {value!r:.60}"
    return None


def record_problem(record: Mapping[str, Any], needed: Iterable[str] = ()) -> str | None:
    """What is wrong with a record: a field of it, or fields that do not go together."""
    samples = record.get("samples_ms")
    paired = ("pair_processes",) if record.get("pair_group") and samples else ()
    found = problem(record, RECORD, (*needed, *paired))
    if not found and samples:
        for parts in ("pair_processes", "moments"):
            if len(samples) % (record.get(parts) or 1):
                return f"samples_ms must be as many in each of the {parts}"
    if not found and samples and (record.get("disturbed") or 0) > len(samples):
        return "disturbed must be at most as many as samples_ms"
    return found


def parse(line: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: other JSON or none; a name twice; a number that is not finite. A writer of run
            files makes none of these.
    """
    try:
        content = _DECODER.decode(line.decode())
    except RecursionError as error:
        raise ValueError("not JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = {intern(name): value for name, value in pairs}  # records share their names
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return content


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is out of range")
    return value


def _int(text: str) -> float:
    return int(text) if len(text) < 19 else _float(text)  # what 64 bits hold, as tables do


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)
