"""Whether pretraining worked: a linear probe and neighbours on the encoder's features."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports.naming import implementation, loss_title
from lossbench.reports.section import Column, Section

KIND = ["machine", "pretrain_encoder", "pretrain_data", "pretrain_epochs", "batch"]
JUDGES = {"probe": "linear probe", "knn": "k-NN"}


def build(records: pd.DataFrame) -> Sequence[Section]:
    """A section for each encoder, data set and length of training.

    Args:
        records: records of ``lossbench pretrain --evaluate``, with several seeds.

    Raises:
        ValueError: no run was judged.
    """
    if "probe_accuracy" not in records or records["probe_accuracy"].isna().all():
        raise ValueError("no run was judged; run lossbench pretrain --evaluate first")
    rows = records[records["probe_accuracy"].notna()]
    return [_section(own) for _, own in rows.groupby(KIND, sort=False)]


def _section(rows: pd.DataFrame) -> Section:
    kinds = rows.groupby(["loss", "variant", "implementation"], sort=False)
    frame = pd.DataFrame([_row(own) for _, own in kinds])
    columns = {"loss": Column("loss", left=True), "implementation": Column("by", left=True)}
    for name, title in JUDGES.items():
        columns[name] = Column(title, "{:.1%}".format)
        columns[f"{name}_std"] = Column("+-", "{:.1%}".format)
        columns[f"{name}_untrained"] = Column("untrained", "{:.1%}".format)
    columns["seeds"] = Column("seeds", "{:.0f}".format)
    first = rows.iloc[0]
    steps = f"{first['steps']:.0f} steps of {first['batch']}"
    notes = [
        f"{first['machine']}. {first['pretrain_encoder']} on {first['pretrain_data']}, {steps}. "
        "Accuracy on all images but 10 of each class, which the probe and the neighbours learn "
        "from: mean of 3 splits, and mean and standard deviation over seeds. Untrained: the same "
        "encoder as it began, its batch norms settled on the images."
    ]
    return Section("Features after pretraining", frame, columns, notes)


def _row(own: pd.DataFrame) -> dict[str, object]:
    found: dict[str, object] = {
        "loss": loss_title(own.iloc[0]),
        "implementation": implementation(own.iloc[0]),
        "seeds": own["pretrain_seed"].nunique(),
    }
    for name in JUDGES:
        found[name] = own[f"{name}_accuracy"].mean()
        found[f"{name}_std"] = own[f"{name}_accuracy"].std(ddof=1)
        found[f"{name}_untrained"] = own[f"untrained_{name}_accuracy"].mean()
    return found
