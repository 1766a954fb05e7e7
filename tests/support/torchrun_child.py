"""A training script as one process of torchrun, with the faults that a test plants in it.

`torchrun_child.py FAULTS SCRIPT OPTIONS...`, where `FAULTS` is a pickle of the test: (restart, rank) → faults.
"""

import os
import pickle
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    faults = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - the test's own
    sys.argv = sys.argv[2:]
    for fault in faults.get((int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])), ()):
        fault()
    runpy.run_path(sys.argv[0], run_name="__main__")
