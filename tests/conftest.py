"""The golden numbers as test cases.

A test that takes `network_row`, `training_row`, `schedule_row` or `cut_row` runs once for each row of
`networks.json`, `training.json`, `schedules.json` or `cut.json` in the folder given by `--golden`.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: tests run side by side, and threads of several processes that wait for each other on
# the same cores slow each other down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# where a test takes two threads on a busy machine: threads that wait for each other let go of their cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from golden_rule import GOLDEN, check_rows, rows


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        type=Path,
        default=Path(__file__).parent / "golden",
        help="folder with networks.json, training.json, schedules.json, cut.json (default: tests/golden)",
    )
    parser.addoption(
        "--hard",
        metavar="DIR",
        type=Path,
        help="folder with the difficult pictures that tests/images/hard.tsv lists (default: those tests are skipped)",
    )


def pytest_configure(config: pytest.Config) -> None:
    sys.dont_write_bytecode = False  # to rewrite the assertions of all modules is half of the collection
    if config.getoption("markexpr") != "gpu":  # `auto` is the CPU, also where there is more
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Networks that were converted for a runtime are kept there: not among the user's own.
    os.environ["I2I_HOME"] = tempfile.mkdtemp(prefix="i2i-tests-home-")
    atexit.register(shutil.rmtree, os.environ["I2I_HOME"], ignore_errors=True)
    check_rows(config.getoption("--golden"))


def pytest_report_header(config: pytest.Config) -> str | None:
    """The processor features and libraries that compute in this run."""
    if "arithmetic" not in config.getoption("markexpr"):
        return None
    import torch

    threads = f"{torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else "1 thread"
    return f"arithmetic: torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {threads}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The modules and tests are there to the end: no search for garbage goes through them, neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Whatever ran before: a test that draws without a seed of its own draws the same each time."""
    if "torch" in sys.modules:  # its `manual_seed` also notes for each kind of device who called it: 0.5 ms
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of torch.compile but the code generator, which takes minutes."""
    import torch

    from i2i.acceleration import exchange

    monkeypatch.setattr(exchange, "BACKEND", "eager")
    yield
    torch._dynamo.reset()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, name in GOLDEN.items():
        if fixture in metafunc.fixturenames:
            found = rows(metafunc.config.getoption("--golden"), name)
            metafunc.parametrize(fixture, found, ids=[f"{i}-{_label(row)}" for i, row in enumerate(found)])


@pytest.fixture
def not_utf8(tmp_path: Path) -> str:
    """The beginning of a name that is not UTF-8, where the file system takes such names."""
    name = "\udcff\udcfe"
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    (tmp_path / name).unlink()
    return name


def _label(row: Any) -> str:
    if isinstance(row, tuple):
        return str(row[0])
    options = row.get("options", {})
    return "-".join([row.get("name", row.get("model", "")), str(options.get("norm", ""))])
