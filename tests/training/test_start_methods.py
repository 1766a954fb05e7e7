"""Workers that are spawned, as on macOS, or come from a fork server, as with Python 3.14, get what is pickled."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import tiny_teacher

from i2i import images
from i2i.algorithms import ALGORITHMS
from i2i.data.pair import _Batches
from i2i.training.launch import open_data
from i2i.training.options import options_class

SCRIPTS = Path(__file__).parents[2] / "scripts"
SITE = "import multiprocessing, os\nmultiprocessing.set_start_method(os.environ['I2I_TEST_START'])\n"
SMALL = "--generator resnet_1blocks --discriminator patchgan_16 --ngf 4 --ndf 4 --load-size 64 --crop-size 64"
JOBS = {
    "plan": f"plan.py cyclegan --data data {SMALL} --workers 1 --measure-steps 2",
    "auto": f"train_cyclegan.py --data data --run run {SMALL} --workers 1 --batch-size auto --max-steps 2",
    "gan": "train_gan.py --data data/trainA --run run --workers 1 --batch-size 2 --max-steps 2 --ngf 4 --ndf 4",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("trainA", "trainB", "train"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            values = np.random.default_rng(i).integers(0, 255, (64, 128, 3), np.uint8)
            images.write(tmp_path / "data" / name / f"{i}.png", images.Picture(values))
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"segmentation"}))  # whose pictures would be labels
def test_the_data_set_of_each_algorithm_is_pickled_whatever_class_its_options_have(name: str, folder: Path) -> None:
    algorithm = ALGORITHMS[name]
    kind = options_class(algorithm)  # no name leads to it
    student: dict[str, Any] = {"teacher": tiny_teacher(), "generator": "resnet_1blocks", "ngf": 4}
    taught = student if name == "distill" else {}
    data, _ = open_data(algorithm, kind(data=folder / "data", check="off", **taught))
    found = pickle.loads(pickle.dumps(_Batches(data.train, 1)))  # noqa: S301
    assert type(found.dataset) is type(data.train) and len(found.dataset) == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
@pytest.mark.parametrize("job", sorted(JOBS))
def test_scripts_with_workers_do_their_work(job: str, start: str, folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    script, *arguments = JOBS[job].split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "I2I_TEST_START": start, "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
