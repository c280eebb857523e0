"""Run files as one table of records."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.runfile import read


def load(paths: Sequence[Path]) -> pd.DataFrame:
    """Records of one or more run files, one row each.

    A record that several files hold (merged or resumed runs) is taken once, from the last of them.
    Columns are the record's fields and ``machine``, which says where it was measured.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: no file holds a record.
    """
    frames = []
    for path in paths:
        run = read(path)
        frame = pd.DataFrame(run.records)
        frame["machine"] = _machine(run.header)
        frames.append(frame)
    records = pd.concat(frames, ignore_index=True)
    if records.empty:
        raise ValueError(f"{', '.join(map(str, paths))}: no records yet; run lossbench run first")
    return records.drop_duplicates("key", keep="last").reset_index(drop=True)


def _machine(header: dict) -> str:
    """One line that names the hardware, the software and the code."""
    facts = header["environment"]
    hardware = facts.get("gpu") or f"{facts.get('cpu')}, {facts.get('threads')} threads"
    commit = header.get("git_commit")
    code = f"commit {commit[:9]}{' (edited)' if header.get('git_dirty') else ''}" if commit else ""
    parts = [hardware, f"torch {facts.get('torch')}", str(header.get("created"))[:10], code]
    return ", ".join(part for part in parts if part)
