"""The guide's script for Slurm: who gets its signal, and when the job goes back into the queue."""

import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "many-machines.md"
SRUN = """#!/bin/bash
# as srun forwards a signal, and as torchrun ends: with 1, when the training has saved
trap 'sleep 0.3; echo "{{\\"status\\": \\"{status}\\"}}" > "$RUN/status.json"; exit 1' USR1
echo started > "$RUN/started"
for _ in $(seq {tenths}); do sleep 0.1; done
exit {code}
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo first && echo second
[ "$1" = requeue ] && echo "$2" > "$RUN/requeued"
exit 0
"""


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """The script of the guide, for a run folder of this test."""
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "batch.sh"
    path.write_text(re.sub(r"^run=.*$", f"run={tmp_path}", script, flags=re.MULTILINE))
    return path


def started(batch: Path, status: str, tenths: int, code: int) -> "subprocess.Popen[str]":
    """The script, started as Slurm does. The training runs for some tenths of a second, or ends after a signal."""
    folder = batch.parent
    for name, text in {"srun": SRUN.format(status=status, tenths=tenths, code=code), "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    words = {"PATH": f"{folder}:{os.environ['PATH']}", "RUN": str(folder), "SLURM_JOB_ID": "42", "SLURM_NNODES": "2"}
    job = subprocess.Popen(["bash", str(batch)], env=os.environ | words | {"SLURM_JOB_NODELIST": "x"}, text=True)
    end = time.monotonic() + 30
    while not (folder / "started").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_a_signal_for_the_batch_shell_saves_and_goes_back_into_the_queue(batch: Path) -> None:
    job = started(batch, "preempted", tenths=300, code=0)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 1
    assert (batch.parent / "requeued").read_text() == "42\n"


@pytest.mark.parametrize(("code", "asked"), [(0, False), (1, False), (1, True)], ids=["finished", "failed", "too late"])
def test_a_job_that_ends_otherwise_is_not_started_again(code: int, asked: bool, batch: Path) -> None:
    """Not even one that was preempted the last time."""
    if not asked:
        (batch.parent / "status.json").write_text('{"status": "preempted"}')
    job = started(batch, "failed", tenths=300 if asked else 5, code=code)
    if asked:
        job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == code
    assert not (batch.parent / "requeued").exists()
