"""The page that `i2i export --web` writes, in a real browser: the library's results, with and without a connection."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from chromium import CHROMIUM, HERE, NODE, colours, missing
from web_sites import style

import i2i
from i2i.images import Picture, Pixels, read, write
from i2i.inference import torch_runtime
from i2i.inference.translator import Translator
from i2i.models import model_file, styles
from i2i.tools import website

MISSING = missing("onnxruntime-web")

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

SIZES = [(64, 64), (61, 47), (5, 130), (33, 1), (80, 60), (131, 97), (49, 200)]
"""Heights and widths; those whose shorter side is above 48 pixels are painted at that size by the style `painter`."""


Drive = Callable[[Path, list[tuple[str, Any]]], dict[str, Any]]


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    """The report of the driver on a visit to a page."""
    command = [str(NODE), str(HERE / "drive_site.mjs"), str(CHROMIUM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as browser:
        assert browser.stdin and browser.stdout

        def visit(site: Path, actions: list[tuple[str, Any]]) -> dict[str, Any]:
            print(json.dumps([site, actions], default=str), file=browser.stdin, flush=True)
            found: dict[str, Any] = json.loads(browser.stdout.readline())
            assert "error" not in found, found["error"]
            return found

        yield visit
        browser.stdin.close()


def picture(path: Path, height: int, width: int) -> Path:
    """Smooth colours with some noise."""
    y, x = np.mgrid[:height, :width] / 20
    colours = np.stack([np.sin(x), np.cos(y + x), np.sin(y * 2)], axis=-1) * 90 + 128
    noise = np.random.default_rng(height * width).normal(0, 12, colours.shape)
    write(path, Picture(np.clip(colours + noise, 0, 255).astype(np.uint8)))
    return path


def pixels(path: Path) -> Any:
    return read(path).pixels.astype(int)


def levels_apart(path: Path, expected: Pixels) -> int:
    found = pixels(path)
    return int(np.abs(found - np.broadcast_to(expected, found.shape)).max())


def by_library(model: Any, path: Path) -> Pixels:
    network, info = model
    result: Pixels = Translator(network, info, precision="fp32").translate(read(path)).pixels.astype(int)
    return result


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    plain, other = style(0), style(3, blocks=2)
    return {
        "plain": plain,
        "painter": painting(plain),
        "other": other,
        "sculptor": painting(other),
        "grey": style(2, in_channels=1, out_channels=1),
        "monet-lite": model_file.open_model(styles.find("monet-lite")),
    }


def painting(model: Any) -> Any:
    """A style with the same network that paints at 48 pixels."""
    network, info = model
    return network, replace(info, paint_size=48)


exported = cache(torch_runtime.onnx_bytes)
"""Export takes seconds, and a network of several styles is the same file but for its metadata."""


def write_page(folder: Path, models: dict[str, Any]) -> Path:
    """A page with a small picture as its example."""
    with (
        mock.patch.object(website, "_PHOTO", picture(folder.with_name("example.jpg"), 90, 160)),
        mock.patch.object(
            torch_runtime, "onnx_bytes", lambda network, channels, side, _: exported(network, channels, side)
        ),
    ):
        website.write_site(folder, models, website.read_runtime(HERE))
    return folder


@pytest.fixture(scope="module")
def site(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("web") / "site", models)


def test_results_are_those_of_the_library(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    inputs = [picture(tmp_path / f"{height}x{width}.png", height, width) for height, width in SIZES]
    chosen = {"plain": inputs, "painter": inputs[:2] + inputs[4:], "grey": inputs[:2]}
    actions: list[tuple[str, Any]] = [("open", None)]
    for name, paths in chosen.items():
        actions.append(("style", name))
        for path in paths:
            actions += [("choose", path), ("save", tmp_path / f"{path.stem}_{name}.png")]
    found = drive(site, actions)
    assert found["messages"] == []
    apart = {
        (path.stem, name): levels_apart(tmp_path / f"{path.stem}_{name}.png", by_library(models[name], path))
        for name, paths in chosen.items()
        for path in paths
    }
    assert all(levels <= 1 for levels in apart.values()), apart


def test_a_bundled_style_gives_the_result_of_the_library(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    inputs = [picture(tmp_path / f"{height}x{width}.png", height, width) for height, width in ((255, 191), (401, 523))]
    actions: list[tuple[str, Any]] = [("open", None), ("style", "monet-lite")]
    for path in inputs:
        actions += [("choose", path), ("save", tmp_path / f"{path.stem}_out.png")]
    drive(site, actions)
    for path in inputs:
        expected = by_library(models["monet-lite"], path)
        assert levels_apart(tmp_path / f"{path.stem}_out.png", expected) <= 1
        assert np.abs(pixels(path) - expected).mean() > 5, "it does paint"
    assert (site / "styles" / "monet-lite.onnx").stat().st_size < 1_500_000


def mix_by_library(folder: Path, models: Any, mix: dict[str, float], path: Path, **options: Any) -> Pixels:
    for name in mix:
        model_file.save(folder / f"{name}.safetensors", *models[name])
    named = {str(folder / f"{name}.safetensors"): weight for name, weight in mix.items()}
    translator = i2i.load_mix(named, precision="fp32", runtime="torch", device="cpu")
    made: Any = np.array(translator(path, **options))
    return made.astype(int)


def test_a_mix_is_that_of_the_library(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    """Also where it is changed once the networks have run, and blended."""
    inputs = [picture(tmp_path / f"{height}x{width}.png", height, width) for height, width in ((61, 47), (80, 60))]
    actions: list[tuple[str, Any]] = [("open", None)]
    wanted: list[tuple[str, dict[str, float], Path]] = []
    for one, two in (("plain", "other"), ("painter", "sculptor")):
        actions += [("style", one), ("choose", inputs[0]), ("mix", {one: 50, two: 50})]
        for path in inputs:
            actions += [("choose", path)]
            for shares in ({one: 50, two: 50}, {one: 20, two: 60}):
                name = f"{path.stem} {one} {shares[one]}.png"
                actions += [("mix", shares), ("save", tmp_path / name)]
                wanted.append((name, dict(shares), path))
        actions.append(("mix", None))
    found = drive(site, actions)
    assert found["messages"] == []
    for name, mix, path in wanted:
        assert levels_apart(tmp_path / name, mix_by_library(tmp_path, models, mix, path)) <= 1, name
    saved = [result for (action, _), result in zip(actions, found["results"], strict=True) if action == "save"]
    assert saved[:2] == ["61x47_plain-50_other-50.png", "61x47_plain-25_other-75.png"]
    one, two = (pixels(tmp_path / f"61x47 plain {share}.png") for share in (50, 20))
    assert np.abs(one - two).max() > 2, "else the test tells nothing"


def test_a_mix_of_painters_with_strength_mask_and_keep(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    path, mix = picture(tmp_path / "in.png", 101, 131), {"painter": 0.6, "sculptor": 0.4}
    ramp = np.broadcast_to(np.linspace(0, 255, 131).round().astype(np.uint8), (101, 131))
    ramp = np.where(np.arange(101)[:, None] < 10, 0, ramp)
    write(tmp_path / "mask.png", Picture(np.ascontiguousarray(ramp[..., None])))
    found = drive(
        site,
        [
            *(("open", None), ("style", "painter"), ("mix", {"painter": 60, "sculptor": 40})),
            *(("evaluate", "document.querySelector('#card').textContent"), ("choose", path)),
            *(("strength", 70), ("mask", tmp_path / "mask.png"), ("keep", "luminance")),
            *(("save", tmp_path / "luminance.png"), ("keep", "colour"), ("save", tmp_path / "colour.png")),
            *(("keep", ""), ("save", tmp_path / "nothing.png")),
        ],
    )
    assert found["messages"] == [] and "40 % sculptor: photo" in found["results"][3]
    for keep in ("luminance", "colour", None):
        options: dict[str, Any] = {"strength": 0.7, "mask": tmp_path / "mask.png", "keep": keep}
        expected = mix_by_library(tmp_path, models, mix, path, **options)
        assert levels_apart(tmp_path / f"{keep or 'nothing'}.png", expected) <= 1, keep
        assert np.array_equal(pixels(tmp_path / f"{keep or 'nothing'}.png")[:10], pixels(path)[:10])
        assert np.abs(expected - pixels(path)).max() > 20, "else the test tells nothing"


def test_a_painted_mask_shows_the_translation_there(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "in.png", 300, 400)
    write(tmp_path / "small.png", Picture(np.full((9, 8, 1), 255, np.uint8)))
    found = drive(
        site,
        [
            *(("open", None), ("choose", path), ("mask", tmp_path / "small.png"), ("save", tmp_path / "whole.png")),
            *(("paint", [(0.1, 0.5), (0.9, 0.5)]), ("save", tmp_path / "painted.png"), ("unmask", None)),
            ("save", tmp_path / "again.png"),
        ],
    )
    assert found["results"][2] == "small.png has 8 × 9 pixels; expected 400 × 300, the size of the picture."
    painted, whole = pixels(tmp_path / "painted.png"), by_library(models["plain"], path)
    assert np.array_equal(painted[:100], pixels(path)[:100]) and np.array_equal(painted[200:], pixels(path)[200:])
    assert np.abs(painted[140:160, 60:340] - whole[140:160, 60:340]).max() <= 1
    assert np.array_equal(pixels(tmp_path / "whole.png"), pixels(tmp_path / "again.png"))


def linear(values: Any) -> Any:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb(light: Any) -> Any:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_strength_mixes_in_linear_light(drive: Drive, site: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "in.png", 70, 90)
    shares = (100, 0, 35)
    actions: list[tuple[str, Any]] = [("open", None), ("choose", path)]
    for share in shares:
        actions += [("strength", share), ("save", tmp_path / f"{share}.png")]
    drive(site, actions)
    before, after, mixed = (pixels(tmp_path / name) / 255 for name in ("in.png", "100.png", "35.png"))
    assert np.array_equal(pixels(tmp_path / "0.png"), pixels(path))
    expected = srgb(0.65 * linear(before) + 0.35 * linear(after))
    assert np.abs(mixed - expected).max() * 255 <= 0.6
    assert np.abs(mixed - (0.65 * before + 0.35 * after)).max() * 255 > 2, "else the test tells nothing"


def test_all_works_when_the_server_is_gone(drive: Drive, site: Path, models: Any, tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png", 64, 64), picture(tmp_path / "b.png", 60, 90)
    found = drive(
        site,
        [
            *(("open", None), ("choose", first), ("kept", None), ("stop", None)),
            *(("open", None), ("choose", second), ("save", tmp_path / "out.png"), ("style", "other")),
        ],
    )
    assert levels_apart(tmp_path / "out.png", by_library(models["plain"], second)) <= 1
    assert found["results"][4] == "An example. Choose, drop or paste a picture of your own."
    assert found["results"][7].endswith("styles/other.onnx cannot be loaded. Is there a connection?")


def test_another_page_of_the_server_is_not_this_one(drive: Drive, site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "other").mkdir()
    (tmp_path / "site" / "other" / "index.html").write_text("<body>another page")
    photo = picture(tmp_path / "a.png", 40, 40)
    visits = [("visit", name) for name in ("runtime/LICENSE.txt", "other/", "index.html")]
    found = drive(tmp_path / "site", [("open", None), ("choose", photo), ("kept", None), *visits])
    licence, other, page = found["results"][3:]
    assert licence.startswith("ONNX Runtime Web") and other == "another page" and "Choose a picture" in page


def test_a_page_that_is_left_and_found_again_shows_its_true_values(drive: Drive, site: Path) -> None:
    shown = (
        "document.querySelector('#strength').value + ' %', document.querySelector('output[for=strength]').textContent"
    )
    visits: list[tuple[str, Any]] = [("open", None), ("strength", 40), ("visit", "runtime/LICENSE.txt"), ("back", None)]
    *_, (value, text) = drive(site, [*visits, ("evaluate", f"[{shown}]")])["results"]
    assert value == text


def test_another_network_of_the_same_name_reaches_a_visitor(
    drive: Drive, site: Path, models: Any, tmp_path: Path
) -> None:
    """Although the browser has the first one, which the server let it keep for ten minutes."""
    shutil.copytree(site, tmp_path / "old")
    new = {"plain": models["other"]}
    write_page(tmp_path / "new", new)
    photo = picture(tmp_path / "a.png", 40, 40)
    version = re.findall(r'VERSION = "(\w+)"', (tmp_path / "new" / "sw.js").read_text())[0]
    look = f"(await caches.keys())[0]?.endsWith('{version}')"
    wait = f"new Promise((done) => setInterval(async () => {{ if ({look}) done() }}, 99))"
    found = drive(
        tmp_path / "old",
        [
            *(("open", None), ("choose", photo), ("kept", None), ("put", tmp_path / "new")),
            *(("open", None), ("evaluate", wait), ("open", None), ("choose", photo)),
            ("save", tmp_path / "out.png"),
        ],
    )
    assert found["messages"] == []
    assert levels_apart(tmp_path / "out.png", by_library(new["plain"], photo)) <= 1
    assert levels_apart(tmp_path / "out.png", by_library(models["plain"], photo)) > 1


def left(clip: str) -> float:
    """The share that is cut off at the left, of `inset(0px 0px 0px 50%)`."""
    return float(clip.rsplit(" ", 1)[-1].rstrip("%)"))


def test_a_visitor_finds_all_that_there_is(drive: Drive, site: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    photo = picture(tmp_path / "my.photo.png", 40, 50)
    text = "document.querySelector('#card').textContent"
    found = drive(
        site,
        [
            *(("open", None), ("shot", tmp_path / "wide.png"), ("strength", 50), ("choose", bad)),
            *(("choose", photo), ("save", tmp_path / "out.png"), ("divide", ["ArrowRight"] * 5)),
            *(("style", "painter"), ("camera", None), ("evaluate", text), ("evaluate", "document.title")),
            *(("view", (360, 700, "dark")), ("shot", tmp_path / "phone.png")),
        ],
    )
    example, _, _, refused, done, name, divided, _, camera, card, title, width, _ = found["results"]
    assert example.startswith("An example.")
    assert refused == "bad.png is no picture that this browser can read."
    assert done.startswith("50 × 40 pixels, in ")
    assert name == "my.photo_plain.png"
    middle, dragged, pressed = map(left, divided)
    assert middle == 50 and 5 <= dragged <= 15 and pressed == dragged + 5
    assert "pixels, in" in camera and "reduced" not in camera, "a painter takes all of it"
    assert "Made for tests." in card and "<script>alert(1)</script>" in card and "Licence: not stated" in card
    assert title == "Photo → test, Monet"
    assert width <= 360
    assert found["messages"] == []
    assert len({url.split("/")[2] for url in found["requests"] if not url.startswith("blob:")}) == 1
    for shot, bright in (("wide", True), ("phone", False)):
        seen = read(tmp_path / f"{shot}.png").pixels
        assert colours(seen) > 50
        assert (np.median(seen) > 128) == bright


def test_a_network_that_is_damaged_is_said_to_be(drive: Drive, site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "site")
    model = tmp_path / "site" / "styles" / "plain.onnx"
    model.write_bytes(bytes(model.stat().st_size))
    (tmp_path / "site" / "styles" / "painter.onnx").write_bytes(b"short")
    photo = picture(tmp_path / "a.png", 40, 40)
    found = drive(
        tmp_path / "site",
        [("open", None), ("choose", photo), ("style", "painter"), ("style", "grey"), ("choose", photo)],
    )
    _, damaged, short, _, good = found["results"]
    assert damaged.startswith("The picture was not translated.")
    assert "styles/painter.onnx has 5 bytes" in short
    assert good.startswith("40 × 40 pixels")
