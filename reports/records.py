"""Run files as one table of records."""

import json
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pandas as pd

from lossbench.bench.comparing.ratios import noises_of
from lossbench.bench.records import runfile
from lossbench.bench.records.calibrations import SLACK, best_of_run, is_beaten, reached
from lossbench.bench.records.fields import ACCURACY, CASE
from lossbench.bench.records.runfile import Run, merge
from lossbench.reports import busy, foreign

MEASURED = (
    *("median_ms", "p20_ms", "p80_ms", "samples_ms", "peak_bytes", "first_call_ms"),
    *("gradient_error", "fraction_of_ceiling", "ceiling_raised"),
    "throttled",
    *("pair_group", "pair_processes", "control_ms", "moments", "floor_ms", "energy_mj", *ACCURACY),
    *busy.FIELDS,
)
COUNTED = (
    *(
        "gmacs",
        "forward_macs_cost_model",
        "forward_macs_flop_counter",
        "title",
        "variant",
        "saved_bytes",
    ),
    *("off_diagonal_entries", "official_communicated_bytes", "gather_layer", "global_batch_norm"),
    *("elementwise", "transcendentals", "uncounted"),
    *(
        "chosen",
        "contender",
        "origin",
        "contender_version",
        "options",
        "products",
        "parity",
        "reason",
    ),
    *("moved_bytes", "predicted_ms", "predicted_peak_bytes", "predicted_largest_batch"),
    "memory_limit_bytes",
)
TOLD = ("encoder", "data", "precision")
"""Settings of a pretraining run that are said of it."""
OF_THE_LOSS = ("loss", "implementation", "hyperparameters", "options")
"""Settings that a record says without."""
TEXTS = ("contender", "origin", "uncounted", "options", "products", "reason")


def load(paths: Sequence[Path]) -> pd.DataFrame:
    """Records of one or more run files, or files of other tools, one row each.

    Columns are the record's fields; ``noise``, of ratios of its group, by what all runs at hand
    show that were measured alike on the same hardware; ``hardware``, and ``machine``, which adds
    the software and the code; ``calibration``, the best ceilings of that machine if they are known;
    and ``created``, when the run was begun.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: no file holds a record.
    """
    return to_frame([open_run(path) for path in paths])


def open_run(path: Path) -> Run:
    """A run file, or what another tool wrote as one.

    Raises:
        RunFileError: a file that is missing or damaged.
    """
    return foreign.read(path) if foreign.recognises(path) else runfile.read(path, tuple(CASE))


def to_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Records of runs as a table; a record that several runs hold is taken once, see ``merge``.

    Raises:
        ValueError: no run holds a record.
    """
    best = merge((record, run.header) for run in runs for record in run.records)
    if not best:
        paths = ", ".join(str(run.path) for run in runs)
        raise ValueError(f"{paths}: no records yet; run lossbench run first")
    machines = {id(run.header): _machine(run.header) for run in runs}
    ceilings = {id(run.header): best_of_run(run.header, run.records) for run in runs}
    rows = [
        {
            **_complete(record),
            "machine": machines[id(head)],
            "hardware": _hardware(head),
            "calibration": ceilings[id(head)],
            "created": head.get("created") or "",
        }
        for record, head in best.values()
    ]
    records = pd.DataFrame(rows)
    # A case that failed early lacks fields: tables show them as missing.
    records = records.reindex(columns=list(dict.fromkeys([*records.columns, *COUNTED, *MEASURED])))
    records[list(MEASURED)] = records[list(MEASURED)].where(records["status"] == "ok")
    for name in TEXTS:
        records[name] = records[name].fillna("")
    records["noise"] = _noise(records)
    records = records.copy()  # in one piece: columns that are added to many pieces are slow
    records["pair_group"] = records["pair_group"].mask(busy.is_lost(records))  # so has no ratio
    if len(runs) == 1:  # for comparisons, which name what differs
        facts = {"environment": runs[0].header["environment"], "path": str(runs[0].path)}
        records.attrs.update(facts)
    return records


def _noise(records: pd.DataFrame) -> pd.Series:
    """What groups show, by all runs of one hardware; steps of pretraining apart, each a round."""
    alike = records.groupby([records["hardware"], records["pass"] == "pretrain"], sort=False)
    found = [noises_of(rows.to_dict("records")) for _, rows in alike]
    return records["pair_group"].map(ChainMap(*found))


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    """A record with what follows from its case, and without what is null."""
    batch, world = record["batch"], record["world"]
    gathers = record["distribution"] == "gather"
    follows = {
        "variant": "",
        "setting": _setting(record),
        "loss_batch": batch * world if gathers else batch,
        "evaluations": 1 if gathers else world,
    }
    known = {name: value for name, value in record.items() if value is not None}
    return follows | known | _of_ceiling(known)


def _of_ceiling(record: dict[str, Any]) -> dict[str, Any]:
    """Shares of a ceiling that older runs say are more than all of it, as runs of today say it."""
    beaten = [name for name in ("fraction_of_ceiling", "mfu") if is_beaten(record.get(name, 0))]
    fields: dict[str, Any] = {}
    for name in beaten:
        fields[name], fields["ceiling_raised"] = reached(record[name])
    return fields if fields.get("ceiling_raised", 0) <= SLACK else dict.fromkeys(fields)


def _setting(record: dict[str, Any]) -> str:
    """How a record is none of a loss alone: by how many processes, or what was pretrained.

    That ends with a checksum of all its settings.
    """
    if record.get("processes", 1) > 1:
        return f"by {record['processes']} processes"
    names = {k.removeprefix("pretrain_"): v for k, v in record.items() if k.startswith("pretrain_")}
    names = {name: value for name, value in names.items() if name not in OF_THE_LOSS}
    if not names:
        return ""
    told = [str(names.get(name, "")) for name in TOLD]
    everything = json.dumps(names, sort_keys=True).encode()
    return " ".join([*told, f"seed {names.get('seed')}", f"({crc32(everything):08x})"])


def _hardware(header: dict[str, Any]) -> str:
    """The GPU, or the CPU and its threads."""
    facts = header["environment"]
    threads = f"{facts['threads']} threads" if facts.get("threads") else ""
    cpu = ", ".join(part for part in (facts.get("cpu"), threads) if part)
    return facts.get("gpu") or cpu or f"machine unknown ({header.get('source')})"


def _machine(header: dict[str, Any]) -> str:
    """One line that names the hardware, the software and the code."""
    facts = header["environment"]
    commit = header.get("git_commit")
    code = f"commit {commit[:9]}{' (edited)' if header.get('git_dirty') else ''}" if commit else ""
    interpreted = "Triton INTERPRETED" if facts.get("interpreted") else ""
    torch = f"torch {facts['torch']}" if facts.get("torch") else ""
    parts = [_hardware(header), torch, interpreted, (header.get("created") or "")[:10], code]
    return ", ".join(part for part in parts if part)
