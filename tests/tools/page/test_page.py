"""The page with Gradio, asked by plain HTTP as a browser would, and as an attacker would."""

import base64
import contextlib
import io
import json
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from page_client import Visitor, order, serving

from i2i import images
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

pytestmark = [
    pytest.mark.promise("R51"),
    pytest.mark.skipif(find_spec("gradio") is None, reason='needs Gradio: pip install "i2i[web]"; see make test-page'),
]
PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
SECRET = b"a text that no visitor may read"


def flat_png(width: int, height: int) -> bytes:
    """A grey picture of so many pixels, in a file of few bytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def style(folder: Path) -> Path:
    network = ResnetConfig(width=2, blocks=0).build()
    model_file.save(folder / "tiny.safetensors", network, describe(network, direction="a2b"))
    return folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def server(folder: Path, style: Path) -> Iterator[Visitor]:
    (folder / "tmp").mkdir()
    with serving(folder / "tmp", str(style), "--runtime", "torch", "--max-megabytes", "2") as (visitor, process):
        yield visitor
    assert process.returncode == 130
    assert list((folder / "tmp").iterdir()) == [], "nothing is left in the temporary folder"


@pytest.fixture
def visitor(server: Visitor) -> Visitor:
    return Visitor(server.port)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    images.write(tmp_path / "a picture.png", images.Picture(PIXELS.astype(np.uint16) * 257))
    return tmp_path / "a picture.png"


def outcome(visitor: Visitor, files: list[Any], style: Path, **options: Any) -> list[Any]:
    done = visitor.translate(files, [style.stem], **options)
    assert done["success"], done
    data: list[Any] = done["output"]["data"]
    return data


def fetched(visitor: Visitor, part: Any) -> bytes:
    """The file that a part of the page offers."""
    reply = visitor.ask("GET", f"/gradio_api/file={part['value']['path']}".replace(" ", "%20"))
    assert reply.status == 200
    return reply.body


def test_a_picture_comes_back_with_name_and_depth(visitor: Visitor, picture: Path, style: Path) -> None:
    _, one, archive, _, report = outcome(visitor, visitor.uploaded(picture), style)
    assert images.decode(fetched(visitor, one)).pixels.dtype == np.uint16
    with zipfile.ZipFile(io.BytesIO(fetched(visitor, archive))) as files:
        assert files.namelist() == ["a picture.png"]
    assert "a picture.png" in report and "done" in report


def test_strength_and_masks_leave_the_picture(visitor: Visitor, picture: Path, tmp_path: Path, style: Path) -> None:
    half = np.zeros((20, 30), np.uint8)
    half[:, 15:] = 255
    images.write(tmp_path / "half.png", images.Picture(half[..., None]))
    stroke = images.encode(images.Picture(np.zeros((20, 30, 3), np.uint8), half), "PNG")
    files, (mask,) = visitor.uploaded(picture), visitor.uploaded(tmp_path / "half.png")
    drawn = "data:image/png;base64," + base64.b64encode(stroke).decode()
    original = images.read(picture).pixels
    for options, same in (({"strength": 0}, 30), ({"mask": mask}, 15), ({"drawn": drawn}, 15)):
        _, one, *_ = outcome(visitor, files, style, **options)
        result = images.decode(fetched(visitor, one)).pixels
        assert (result[:, :same] == original[:, :same]).all(), options
        assert same == 30 or (result[:, same:] != original[:, same:]).any()


def test_a_mask_of_another_size_is_said(visitor: Visitor, picture: Path, tmp_path: Path, style: Path) -> None:
    images.write(tmp_path / "small.png", images.Picture(np.full((9, 9, 1), 255, np.uint8)))
    (mask,) = visitor.uploaded(tmp_path / "small.png")
    *_, report = outcome(visitor, visitor.uploaded(picture), style, mask=mask)
    assert "30x20 pixels" in report and "9x9" in report and ".i2i-page" not in report


def test_twenty_orders_at_once_are_filled_in_turn(server: Visitor, picture: Path, style: Path) -> None:
    def one(number: int) -> bool:
        visitor = Visitor(server.port)
        return "done" in outcome(visitor, visitor.uploaded(picture), style)[4]

    with ThreadPoolExecutor(20) as many:
        assert all(many.map(one, range(20)))


def test_a_large_file_and_a_bomb_are_refused_soon(visitor: Visitor, folder: Path, tmp_path: Path, style: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(70_000_000))
    (tmp_path / "bomb.png").write_bytes(flat_png(10_000, 10_000))
    files = visitor.uploaded(tmp_path / "bomb.png")
    began = time.monotonic()
    report = outcome(visitor, files, style)[4]
    assert "10000x10000 pixels: at most 50000000 are accepted" in report
    assert time.monotonic() - began < 5
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answers before all is sent
        assert visitor.upload(tmp_path / "large.png").status == 413
    assert not [path for path in (folder / "tmp").glob("*/*") if path.is_file() and path.stat().st_size > 2_000_000]


def secrets_of(folder: Path) -> list[str]:
    (folder / "secret.txt").write_bytes(SECRET)
    inside = str(folder / "tmp")
    return [str(folder / "secret.txt"), f"{inside}/../secret.txt", "../secret.txt", "/etc/passwd", "/proc/self/environ"]


def test_no_path_of_a_request_is_opened(visitor: Visitor, folder: Path, style: Path) -> None:
    for path in secrets_of(folder):
        file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        own = [style.stem]
        for data in (order([file], own), order(None, own, camera=file), order([], own, mask=file)):
            assert visitor.join("_translate", data).status == 403
        for method in ("GET", "HEAD"):
            for route in ("file=", "file/", "stream/", "proxy="):
                assert visitor.ask(method, f"/gradio_api/{route}{path}").status in (403, 404)
        for route in ("static", "assets", "svelte"):
            for dots in ("../" * 8, "%2e%2e/" * 8, "..%2f" * 8):
                reply = visitor.ask("GET", f"/{route}/{dots}{path.lstrip('/')}")
                assert reply.status in (400, 403, 404) and SECRET not in reply.body and b"root:" not in reply.body


def test_no_address_of_a_request_is_fetched(visitor: Visitor, style: Path) -> None:
    url = f"http://127.0.0.1:{visitor.port}/config"
    for file in ({"path": url}, {"path": None, "url": url}, {"path": "", "url": f"{url}/gradio_api/file=/etc/passwd"}):
        whole = file | {"orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        assert visitor.join("_translate", order([whole], [style.stem])).status == 403
    for route in ("file=", "proxy=", "custom_component/", "deep_link?session_hash="):
        assert visitor.ask("GET", f"/gradio_api/{route}{url}").status == 404


def test_what_gradio_has_beyond_the_page_is_not_there(visitor: Visitor) -> None:
    for path in ("monitoring", "docs", "login", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/runs",
                 "gradio_api/mcp", "gradio_api/vibe-code", "gradio_api/queue/status", "gradio_api/token"):  # fmt: skip
        assert visitor.ask("GET", f"/{path}").status == 404
    assert visitor.ask("POST", "/gradio_api/component_server", b"{}").status == 404


def test_foreign_hosts_and_origins_are_refused(visitor: Visitor, picture: Path) -> None:
    assert visitor.ask("GET", "/", Host="evil.example").status == 421
    for origin in ("http://evil.example", "null"):
        assert Visitor(visitor.port, {"Origin": origin}).upload(picture).status == 403


def test_an_error_tells_a_visitor_nothing_of_the_machine(visitor: Visitor, picture: Path, style: Path) -> None:
    for data in (order(3, [style.stem]), order([{"path": None}], [style.stem]), []):
        visitor.session = visitor.session + "x"
        done = visitor.call("_translate", data)
        assert not done["success"]
        assert "Traceback" not in json.dumps(done) and "/" not in str(done["output"].get("error") or "")
    files = visitor.uploaded(picture)
    for wrong, said in (
        ({"styles": []}, "Choose a style"), ({"styles": ["no such"]}, "Choose a style"), ({"size": -1}, "Size"),
        ({"strength": "much"}, "Strength"), ({"keep": "shape"}, "Keep"), ({"drawn": "data:text/html,x"}, "mask"),
        ({"drawn": "data:image/png;base64,AAAA"}, "The mask"), ({"files": []}, "Drop a picture"),
    ):  # fmt: skip
        done = visitor.translate(**{"files": files, "styles": [style.stem], **wrong})
        assert said in done["output"]["error"], done
    gone = files[0] | {"path": f"{files[0]['path']}x", "orig_name": "<img src=x>.png"}
    said = visitor.translate([gone], [style.stem])["output"]["error"]
    assert said.startswith("&lt;img src=x&gt;.png is not here"), "Gradio shows it as HTML"


def test_nothing_is_asked_of_the_internet(visitor: Visitor) -> None:
    page = visitor.ask("GET", "/").body.decode()
    assert "fonts.googleapis" not in page and 'src="http' not in page
    css = visitor.ask("GET", "/theme.css").body.decode()
    assert "@import" not in css and not re.search(r"url\((?![\"']?data:)", css)


def test_the_example_can_be_translated(visitor: Visitor, style: Path) -> None:
    ((file,),) = visitor.call("_take_example", [])["output"]["data"]
    assert file["orig_name"] == "bay.jpg" and "done" in outcome(visitor, [file], style)[4]


def test_styles_have_thumbnails(visitor: Visitor) -> None:
    visitor.call("_first", [])
    assert images.decode(visitor.ask("GET", "/styles/0.jpg").body).pixels.shape[2] == 3
    assert visitor.ask("GET", "/styles/1.jpg").status == 404


def test_none_goes_around_the_queue(visitor: Visitor, style: Path) -> None:
    names = {d["api_name"]: d["id"] for d in visitor.ask("GET", "/config").json()["dependencies"]}
    for name, status in (("_translate", 404), ("_take_example", 404), ("_stop", 200)):
        body = {"data": order([], [style.stem]), "fn_index": names[name], "session_hash": visitor.session}
        reply = visitor.ask(
            "POST", "/gradio_api/run/predict", json.dumps(body).encode(), Content_Type="application/json"
        )
        assert reply.status == status, name


@pytest.fixture
def studio(style: Path) -> Any:
    from i2i.inference.options import ModelOptions
    from i2i.models.styles import style_at
    from i2i.tools.page.studio import Bounds, Studio

    return Studio({"tiny": style_at("tiny", "run", style)}, ModelOptions(device="cpu", runtime="torch"), Bounds())


def test_a_thumbnail_that_is_not_made_keeps_nobody_waiting(studio: Any, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from i2i.tools.page.page import build_app

    app, waiting = build_app(studio, tmp_path)
    assert waiting() == []
    client = TestClient(app)
    with ThreadPoolExecutor(1) as other, studio._ordered():
        assert other.submit(client.get, "/styles/0.jpg").result(20).status_code == 204
    studio.example("tiny", tmp_path)
    assert client.get("/styles/0.jpg").status_code == 200


class OpenPage:
    """A page whose handlers are called by hand, for one visitor."""

    def __init__(self, studio: Any, folder: Path, picture: Path) -> None:
        from i2i.tools.page.page import _Page

        self.page, self.request = _Page(studio, folder), SimpleNamespace(session_hash="a")
        (folder / "upload").mkdir()
        self.upload = folder / "upload" / "a.png"
        self.upload.write_bytes(picture.read_bytes())

    def translate(self) -> Any:
        file = {"path": str(self.upload), "orig_name": "a.png"}
        given: tuple[Any, ...] = (*order([file], ["tiny"]), self.request, lambda *_, **__: None)
        return self.page._translate(*given)


def test_stop_ends_an_order_that_waits(studio: Any, tmp_path: Path, picture: Path) -> None:
    visit = OpenPage(studio, tmp_path, picture)
    visit.page._stop(visit.request)
    visit.page._begin(visit.request)
    assert "done" in visit.translate()[-1], "an order is not ended by a Stop before it"
    visit.page._begin(visit.request)
    visit.page._stop(visit.request)
    assert "stopped" in visit.translate()[-1]


def test_nothing_is_left_of_who_leaves_during_an_order(
    studio: Any, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit = OpenPage(studio, tmp_path, picture)
    translated = studio.translate

    def leave_meanwhile(order: Any, folder: Path, *more: Any) -> Any:
        visit.page._leave(visit.request)
        folder.mkdir()
        visit.upload.touch()
        return translated(order, folder, *more)

    monkeypatch.setattr(studio, "translate", leave_meanwhile)
    visit.translate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a picture.png", "upload"]


def test_with_a_token_the_address_of_the_page_opens_it(folder: Path, style: Path) -> None:
    with serving(folder / "tmp", str(style), "--token") as (visitor, _):
        assert visitor.ask("GET", "/").status == 401 and visitor.ask("GET", "/config").status == 401
        entered = visitor.ask("GET", f"/{visitor.query}")
        assert entered.status == 303
        visitor.headers["Cookie"] = entered.headers["set-cookie"].partition(";")[0]
        assert visitor.ask("GET", "/config").status == 200
