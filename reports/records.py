"""Run files as one table of records."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.runfile import read

ERRORS = tuple(
    f"accuracy_{kind}_{what}_error{suffix}"
    for kind in ("random", "aligned", "collapsed")
    for what in ("value", "gradient")
    for suffix in ("", "_to_reference")
)
MEASURED = (
    *("median_ms", "p20_ms", "p80_ms", "samples_ms", "peak_bytes", "first_call_ms"),
    "gradient_error",
    *("pair_group", "pair_processes", "pair_noise", "floor_ms", "energy_mj", *ERRORS),
)
COUNTED = (
    *("gmacs", "forward_macs_cost_model", "title", "variant", "saved_bytes"),
    *("off_diagonal_entries", "official_communicated_bytes", "gather_layer", "global_batch_norm"),
    *("chosen", "contender", "contender_version", "options", "products", "parity"),
)


def load(paths: Sequence[Path]) -> pd.DataFrame:
    """Records of one or more run files, one row each.

    A record that several files hold (merged or resumed runs) is taken once, from the last of them.
    Columns are the record's fields and ``machine``, which says where it was measured.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: no file holds a record.
    """
    rows: list[dict] = []
    for path in paths:
        run = read(path)
        rows += [{**record, "machine": _machine(run.header)} for record in run.records]
    if not rows:
        raise ValueError(f"{', '.join(map(str, paths))}: no records yet; run lossbench run first")
    records = pd.DataFrame(rows)
    # A case that failed early lacks fields: tables show them as missing.
    records = records.reindex(columns=list(dict.fromkeys([*records.columns, *COUNTED, *MEASURED])))
    records.loc[records["status"] != "ok", list(MEASURED)] = None
    for name in ("contender", "options", "products"):
        records[name] = records[name].fillna("")
    return records.drop_duplicates("key", keep="last").reset_index(drop=True)


def _machine(header: dict) -> str:
    """One line that names the hardware, the software and the code."""
    facts = header["environment"]
    hardware = facts.get("gpu") or f"{facts.get('cpu')}, {facts.get('threads')} threads"
    commit = header.get("git_commit")
    code = f"commit {commit[:9]}{' (edited)' if header.get('git_dirty') else ''}" if commit else ""
    interpreted = "Triton INTERPRETED" if facts.get("interpreted") else ""
    torch = f"torch {facts.get('torch')}"
    parts = [hardware, torch, interpreted, str(header.get("created"))[:10], code]
    return ", ".join(part for part in parts if part)
