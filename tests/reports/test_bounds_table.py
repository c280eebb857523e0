"""The page's table of bounds says of each step what it was and what it is."""

import pytest

from lossbench.reports.page import refresh

ROWS = """state,triton,cc,N,D,pass,kernel,launches,tiles,limit,share
before,3.7.1,90,64,128,step,split_kernel,1,10,issue,0.3
before,3.7.1,90,64,128,step,step,1,,,0.25
now,3.7.1,90,64,128,step,fused_kernel,1,10,issue,0.4
now,3.7.1,90,64,128,step,fused_kernel,2,10,tensor,0.625
now,3.7.1,90,64,128,step,finish_kernel,2,10,issue,
now,3.7.1,90,64,128,step,step,5,,,0.5
now,3.7.1,90,64,128,forward,finish_kernel,1,10,issue,
now,3.7.1,90,64,128,forward,step,1,,,0.75
now,3.7.1,100,64,128,step,step,1,,,0.9
"""


def page(tmp_path, arguments):
    (tmp_path / "bounds.csv").write_text(ROWS)
    return refresh(f"<!-- lossreport bounds {arguments} -->\n<!-- end -->\n", tmp_path)


def test_before_and_now(tmp_path):
    lines = page(tmp_path, "bounds.csv 90").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    fused = "fused_kernel 62% (tensor)"  # of those that do more work
    about = ["3.7.1", "64", "128"]
    assert cells[2:] == [
        [*about, "with gradient", "25%", "split_kernel 30% (issue)", "50%", fused],
        [*about, "value alone", "-", "-", "75%", "cuBLAS"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bounds.csv", "FILE CAPABILITY"),
        ("none.csv 90", "none.csv cannot be read"),
        ("bounds.csv 80", "no bounds of compute capability '80'"),
    ],
)
def test_what_cannot_be_shown(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        page(tmp_path, arguments)
