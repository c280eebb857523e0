"""What may stand in a line of a run file: JSON that says one thing, and fields of the right kind.

Fields that are not named here are kept as they are. A field that is null counts as missing.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any

STATUSES = ("ok", "oom", "unsupported", "invalid", "error", "timeout")
PASSES = ("forward", "forward_grad", "step", "pretrain")
"""What a record is of: a pass of a loss, or steps of pretraining."""
DISTRIBUTIONS = ("local", "gather", "allreduce", "gram")
ACCURACY = tuple(
    f"accuracy_{kind}_{what}_error{suffix}"
    for kind in ("random", "aligned", "collapsed")
    for what in ("value", "gradient")
    for suffix in ("", "_to_reference")
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Kind:
    """What a field must be.

    Attributes:
        says: in words.
        holds: whether a value is.
    """

    says: str
    holds: Callable[[Any], bool]


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


SHORTEST, LONGEST = 1e-9, 1e12
"""Milliseconds: neither a rounding error of a clock nor 30 years."""


def _one_of(known: tuple[str, ...]) -> Kind:
    return Kind(f"one of {', '.join(known)}", lambda value: value in known)


def _are_times(value: Any) -> bool:
    """As ``TIME``, of a whole list: most of what is read is samples."""
    if not isinstance(value, list) or not value or not {*map(type, value)} <= {int, float}:
        return False
    return min(value) >= SHORTEST and max(value) <= LONGEST and math.isfinite(sum(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and not _UNPRINTABLE.search(value)


def _are_ceilings(value: Any) -> bool:
    """As ``bench.predicting.ceilings`` describes them."""
    if not isinstance(value, dict):
        return False
    rates, copies = value.get("gemm_gflops"), value.get("copy_gb_per_s")
    if not (rates and isinstance(rates, dict)) or not (copies and isinstance(copies, list)):
        return False
    pairs = [each for each in copies if isinstance(each, list) and len(each) == 2]
    sizes = [each[0] for each in pairs]
    numbers = [*rates.values(), *(x for each in pairs for x in each), value.get("launch_us")]
    if "link_us" in value:
        numbers += _link_numbers(value)
    holds = _number(1e-9, 1e18)
    if len(pairs) < len(copies) or not all(map(holds, numbers)):
        return False
    return sizes[0] >= 1 and sizes == sorted(set(sizes))  # a byte at least, and ascending


def _link_numbers(value: dict[str, Any]) -> list[Any]:
    """As ``bench.predicting.links`` describes them; None for one that is missing."""
    rates = value.get("link_gb_per_s")
    known = rates if isinstance(rates, dict) else {}
    return [value["link_us"], *map(known.get, ("all_gather", "all_reduce"))]


TEXT = Kind("a str", lambda value: isinstance(value, str) and not _SURROGATE.search(value))
LINE = Kind("a str on one line", _is_name)
NAME = Kind("a name, a str on one line", lambda value: _is_name(value) and value.strip() != "")
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 1, below 2^31", _whole(1, 2**31 - 1))
AMOUNT = Kind("a number from 0", _number(0, 1e24))
NUMBER = Kind("a number", _number(-1e300, 1e300))
TIME = Kind("a time above 0 ms", _number(SHORTEST, LONGEST))
SAMPLES = Kind("a list of times above 0 ms", _are_times)
FACTS = Kind("a dict", lambda value: isinstance(value, dict))

HEADER: dict[str, Kind] = {
    "schema": Kind("a whole number", _whole(0, 2**62)),
    "environment": FACTS,
    **dict.fromkeys(("environment_hash", "code_hash"), TEXT),
    **dict.fromkeys(("created", "git_commit"), LINE),
    "git_dirty": FLAG,
    "calibration": Kind("the ceilings of a device", _are_ceilings),
}
FACT: dict[str, Kind] = {
    **dict.fromkeys(("device", "cpu", "gpu", "torch"), LINE),
    **dict.fromkeys(("threads", "processes"), COUNT),
    "interpreted": FLAG,
}
CASE: dict[str, Kind] = {
    **dict.fromkeys(("loss", "implementation", "dtype", "inputs"), NAME),
    "pass": _one_of(PASSES),
    "distribution": _one_of(DISTRIBUTIONS),
    **dict.fromkeys(("batch", "dim", "world"), COUNT),
}
"""What a report must know of a record."""
RECORD: dict[str, Kind] = {
    "key": TEXT,
    "status": _one_of(STATUSES),
    **CASE,
    "loss_batch": Kind("a whole number from 1", _whole(1, 2**62)),
    **dict.fromkeys(("evaluations", "pair_processes", "processes"), COUNT),
    **dict.fromkeys(
        ("variant", "options", "products", "contender", "device", "hyperparameters"), LINE
    ),
    **dict.fromkeys(("title", "chosen", "contender_version", "parity", "inputs_id"), LINE),
    **dict.fromkeys(("reason", "accuracy", "pair_group"), TEXT),
    **dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "call_ms", "first_call_ms"), TIME),
    **dict.fromkeys(("macs", "macs_cost_model", "macs_flop_counter"), AMOUNT),
    **dict.fromkeys(("forward_macs_cost_model", "forward_macs_fvcore"), AMOUNT),
    **dict.fromkeys(("peak_bytes", "saved_bytes", "input_bytes", "off_diagonal_entries"), AMOUNT),
    **dict.fromkeys(("communicated_bytes", "official_communicated_bytes"), AMOUNT),
    **dict.fromkeys(("gmacs", "gflops", "floor_ms", "energy_mj", "pair_noise"), AMOUNT),
    **dict.fromkeys(("value_error", "gradient_error", *ACCURACY), AMOUNT),
    **dict.fromkeys(("value_error_to_reference", "gradient_error_to_reference"), AMOUNT),
    **dict.fromkeys(("value", "value_fp64", "scale"), NUMBER),
    **dict.fromkeys(("counts_agree", "gather_layer", "global_batch_norm", "replayed"), FLAG),
    **dict.fromkeys(("executed_macs", "moved_bytes", "launches", "ceiling_ms"), AMOUNT),
    **dict.fromkeys(("predicted_ms", "predicted_compute_ms", "predicted_memory_ms"), AMOUNT),
    **dict.fromkeys(("predicted_launch_ms", "predicted_peak_bytes"), AMOUNT),
    **dict.fromkeys(("predicted_largest_batch", "memory_limit_bytes"), AMOUNT),
    **dict.fromkeys(("predicted_step_ms", "predicted_network_ms", "predicted_loss_ms"), AMOUNT),
    **dict.fromkeys(("predicted_optimizer_ms", "predicted_communication_ms"), AMOUNT),
    "predicted_gradient_reduction_ms": AMOUNT,
    **dict.fromkeys(("predicted_bound", "throttled"), LINE),
    "fraction_of_ceiling": AMOUNT,
    "communication_ms": AMOUNT,
    "samples_ms": SAMPLES,
}
MEASURED = ("median_ms", "p20_ms", "p80_ms", "peak_bytes", "macs")
"""What a record that is ok cannot lack, unless it is of pretraining: few steps are not timed."""


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
    samples, processes = record.get("samples_ms"), record.get("pair_processes")
    paired = ("pair_processes", "pair_noise") if record.get("pair_group") and samples else ()
    found = problem(record, RECORD, (*needed, *paired))
    if not found and samples and processes and len(samples) % processes:
        return "samples_ms must be as many in each of the pair_processes"
    return found


def group_problem(record: Mapping[str, Any], processes: dict[str, int]) -> str | None:
    """What sets a record apart from those of its group; ``processes`` keeps their number."""
    group, count = record.get("pair_group"), record.get("pair_processes")
    if group and count and processes.setdefault(group, count) != count:
        return f"pair_processes differs within pair_group {group}"
    return None


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
