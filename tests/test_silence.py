"""Nothing is told to anyone: no script and no runtime opens a socket or looks up a name unasked (R50)."""

import os
import subprocess
import sys
from pathlib import Path

import no_network
import numpy as np
import pytest

from i2i import images
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

SCRIPTS = Path(__file__).parents[1] / "scripts"
SUPPORT = Path(no_network.__file__).parent
FORBID = f"import sys; sys.path.insert(0, {str(SUPPORT)!r}); import no_network; no_network.forbid()\n"
EVERYTHING = """
import importlib, importlib.util, pkgutil
import i2i
left_out = ("i2i.configs",)
if not importlib.util.find_spec("gradio"):
    left_out += ("i2i.tools.page.page",)
for module in pkgutil.walk_packages(i2i.__path__, "i2i."):
    if not module.name.startswith(left_out):
        importlib.import_module(module.name)
for name in ("kornia", "torchmetrics", "huggingface_hub", "onnxscript", "tensorboard", "gradio", "pi_heif"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""
TRANSLATE = """
import os, sys, numpy, i2i
for runtime in ("torch", "openvino", "onnx"):
    i2i.load_translator(sys.argv[1], device="cpu", runtime=runtime)(numpy.zeros((32, 32, 3), numpy.uint8))
home = {name for _, folders, files in os.walk(os.environ["HOME"]) for name in (*folders, *files)}
assert home <= {"converted"} or "Microsoft" not in home and "intel" not in home, home
print("silent")
"""
TINY = "--data toy --generator resnet_1blocks --discriminator patchgan_16 --ngf 4 --ndf 4 --crop-size 16 --load-size 16"
JOBS = {
    "train_cyclegan.py": f"{TINY} --max-steps 2 --validate-every 0 --samples 1 --workers 1 --run run",
    "plan.py": f"cyclegan {TINY} --workers 0",
    "translate.py": "--style {style} --runtime openvino in -o out",
    "augment.py": "--style {style} in -o out",
    "evaluate.py": "in in",
    "report.py": "in",
    "export.py": "{style} -o out.onnx",
    "compare.py": "in in -o page.html",
    "doctor.py": "",
}

pytestmark = [
    pytest.mark.promise("R50"),
    pytest.mark.skipif(not no_network.available(), reason="this system has no filter of system calls"),
]


@pytest.fixture
def style(tmp_path: Path) -> Path:
    network = ResnetConfig(width=2, blocks=0).build()
    model_file.save(tmp_path / "tiny.safetensors", network, describe(network, direction="a2b"))
    (tmp_path / "in").mkdir()
    for name in "ab":
        values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        images.write(tmp_path / "in" / f"{name}.png", images.Picture(values))
    return tmp_path / "tiny.safetensors"


def silent(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(cwd / "home"), "I2I_HOME": str(cwd / "i2i"), "OMP_NUM_THREADS": "1"}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment.pop(name, None)
    (cwd / "home").mkdir(exist_ok=True)
    command = [sys.executable, "-c", FORBID + code, *arguments]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode != no_network.KILLED, f"a socket: {arguments}"
    return done


@pytest.mark.parametrize("how", ["import socket; socket.socket()", "import socket; socket.getaddrinfo('x.invalid', 1)"])
def test_the_filter_kills_who_opens_a_socket(how: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a socket"):
        silent(how, cwd=tmp_path)
    assert silent("import socket; socket.socketpair()", cwd=tmp_path).returncode == 0


def test_no_module_and_no_runtime_opens_a_socket(style: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    done = silent(EVERYTHING + TRANSLATE, str(style), cwd=tmp_path)
    assert done.stdout.endswith("silent\n"), done.stderr


SCRIPT = """
import os, runpy
script = sys.argv.pop(1)
sys.path.insert(0, os.path.dirname(script))
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_no_script_opens_a_socket(script: str, style: Path, tmp_path: Path) -> None:
    path = str(SCRIPTS / script)
    assert silent(SCRIPT, path, "--help", cwd=tmp_path).returncode == 0
    if script in JOBS:
        done = silent(SCRIPT, path, *JOBS[script].format(style=style).split(), cwd=tmp_path)
        assert done.returncode in ((0, 3, 4) if script != "doctor.py" else (0,)), done.stderr  # its children too
