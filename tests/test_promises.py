"""docs/reliability.md says what is so: its promises, its limits, its exit codes."""

import inspect
import re
from pathlib import Path

import pytest

from i2i import errors, films, plain_yaml
from i2i.commands import translate
from i2i.config import bounds
from i2i.download import download
from i2i.folders import pipeline
from i2i.images import Limits
from i2i.models import metadata, pickles
from i2i.networks import GENERATOR_KINDS
from i2i.tools.datasets import fetch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def _promised() -> set[str]:
    return set(re.findall(r"^\| ([RH]\d+) \|", PAGE, re.MULTILINE))


def _tested() -> set[str]:
    marks = [m for f in (ROOT / "tests").rglob("*.py") for m in re.findall(r"mark\.promise\(([^)]*)\)", f.read_text())]
    return {name for mark in marks for name in re.findall(r'"(\w+)"', mark)}


def test_every_promise_has_a_test_and_every_test_a_promise() -> None:
    assert _promised() == _tested()


def _mib(size: int) -> str:
    return f"{size / (1 << 20):g} MiB"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):g} GiB"


def _picture() -> str:
    limits = Limits()
    return f"{limits.side:,}; {_gib(limits.file_bytes)}"


def _network() -> str:
    """The largest number that a configuration of a generator of pictures from pictures takes."""
    most = {
        name: max(
            int(bounds(hint).split("≤ ")[1])
            for kind, config in GENERATOR_KINDS.items()
            for key, hint in inspect.get_annotations(config, eval_str=True).items()
            if key.endswith(name) and kind != "dcgan"
        )
        for name in ("width", "blocks", "channels")
    }
    return ", ".join(f"{name} ≤ {number}" for name, number in most.items())


def _yaml() -> str:
    size = f"{_mib(plain_yaml.MAX_BYTES)} ({plain_yaml.MAX_SLOW_BYTES >> 10} KiB where libyaml cannot read it)"
    return f"{size}, depth {plain_yaml.MAX_DEPTH}, {plain_yaml.MAX_EVENTS:,} keys, values and brackets"


def _archive() -> str:
    return f"{fetch.MAX_MEMBERS:,} files, {_gib(fetch.MAX_BYTES)} unpacked"


def _download() -> str:
    least = {name: parameter.default for name, parameter in inspect.signature(download).parameters.items()}
    return f"{_gib(least['max_bytes'])}, {least['timeout']:g} s without an answer"


def _page() -> str:
    least = translate.ServeCommand()
    pixels = f"{least.max_megapixels * 1e6:,.0f} pixels"
    return f"{least.max_megabytes:g} MB; {pixels}; {least.max_pictures}; {least.time_limit:g} s"


LIMITS = {
    "pixels of a picture": f"{Limits().pixels:,}",
    "side of a picture; its file": _picture(),
    "pictures waiting in a folder translation": (
        f"{pipeline.QUEUE_PIXELS / (1 << 20):g} Mi pixels, or one larger picture"
    ),
    "pixels of all frames of a GIF or WebP that is written": f"{films.MAX_PIXELS >> 20} Mi",
    "model file or checkpoint": f"{_gib(metadata.MAX_FILE_BYTES)}, {metadata.MAX_TENSORS:,} tensors",
    "its network": _network(),
    "its header (.safetensors)": _mib(metadata.MAX_HEADER_BYTES),
    "its pickles (.pth)": f"{_mib(pickles.MAX_PICKLE_BYTES)}, {pickles.MAX_OPCODES:,} operations",
    "its description, JSON": (
        f"{_mib(metadata.MAX_INFO_BYTES)}, depth {metadata.MAX_JSON_DEPTH}, {metadata.MAX_TEXT:,} characters in a text"
    ),
    "YAML configuration": _yaml(),
    "archive": _archive(),
    "download": _download(),
    "page: a file; a picture; pictures at once; an order": _page(),
}


@pytest.mark.parametrize("what", LIMITS)
def test_the_limits_are_those_of_the_page(what: str) -> None:
    assert re.findall(rf"^\| {re.escape(what)} \| (.*?) \|", PAGE, re.MULTILINE) == [LIMITS[what]]


CODES = {
    "UsageError": 2, "SomeFailed": 3, "InputError": 4, "ModelError": 5, "OutputError": 6, "LockedError": 7,
    "DivergedError": 8, "ResourceError": 9,
}  # fmt: skip


def test_the_exit_codes_are_those_of_the_page() -> None:
    kinds = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert {name: kinds[name].exit_code for name in CODES} == CODES  # type: ignore[attr-defined]
    assert errors.I2IError.exit_code == 1, "what is nobody's but a bug's"
    for text in (PAGE.partition("## Exit codes")[2], errors.__doc__ or ""):
        told = re.findall(r"(?:^|· ?)(\d+) \w", text, re.MULTILINE)
        assert set(map(int, told)) == {0, 1, *CODES.values(), 75, 130, 141, 143}
