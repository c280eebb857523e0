"""Child processes: what they leave behind when they are killed."""

import os
import subprocess
import sys

from command_line import HERE, ROOT

KILLED = """
from lossbench.bench.cases.case import Case
from lossbench.bench.running.worker import Worker

if __name__ == "__main__":
    target = "third_party:dies_with_a_lock"
    case = Case("smi", "mine", batch=4, dim=4, device="cpu", contender=target)
    print(Worker("cpu").evaluate(case, timeout_s=60)["reason"])
"""


def test_a_lock_of_a_killed_child_is_not_reported_as_leaked(tmp_path):
    """tqdm makes one wherever torch's compiler shows its progress."""
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.stdout.startswith("killed by the system"), done.stderr
    assert done.stderr == ""
