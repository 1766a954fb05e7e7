"""scripts/augment.py: labelled folders in, with translated copies and their labels out."""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import exit_code

from i2i import images
from i2i.errors import InputError, UsageError
from i2i.images import Picture, palettes
from i2i.inference.translator import Translator, load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig
from i2i.tools.labelled import by_picture, layout
from i2i.tools.labelled.augment import augment_folder

WIDTH, HEIGHT = 20, 16
script = partial(exit_code, "augment")
Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two styles, monet and ink."""
    folder = tmp_path_factory.mktemp("styles")
    found = {}
    for seed, name in enumerate(("monet", "ink")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = init_weights(ResnetConfig(width=2, blocks=0).build(), gain=0.3)
        found[name] = folder / f"{name}.safetensors"
        model_file.save(found[name], network, describe(network, direction="a2b"))
    return found


def picture(path: Path, channels: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(os.fsencode(path.name))).integers(0, 256, (HEIGHT, WIDTH, channels), np.uint8)
    images.write(path, Picture(pixels))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def tree(folder: Path) -> Tree:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def yolo(data: Path) -> None:
    for name in ("train/a.jpg", "train/b.png", "val/c.jpg"):
        picture(data / "images" / name)
    text(data / "labels/train/a.txt", "0 0.5 0.5 0.2 0.4\r\n1 .1 .1 .2 .2")
    text(data / "labels/val/c.txt", "1 0.1 0.1 0.3 0.1 0.2 0.9\n")
    text(data / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    text(data / "train.txt", f"./images/train/a.jpg\n{data}/images/train/b.png\n")


def yolo_beside(data: Path) -> None:
    picture(data / "a.jpg")
    picture(data / "deep/b.png")
    text(data / "a.txt", "0 0.5 0.5 1 1\n")
    text(data / "deep/b.txt", "")
    text(data / "classes.txt", "cat\n")
    text(data / "readme.txt", "hello\n")


XML = (
    '<?xml version="1.0" encoding="ISO-8859-1"?>\r\n<annotation verified="yes">\n\t<folder>JPEGImages</folder>'
    "<!-- b.jpg --><filename >{name}</filename>\n<path>C:\\voc\\{name}</path><source><image>flickr</image></source>"
    "<size><width>20</width><height>16</height><depth>3</depth></size>"
    "<object><name>caf&#233; &amp; \xe9</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>16</ymax>"
    "</bndbox><part><bndbox/></part></object>\n</annotation>\n\n"
)


def voc(data: Path) -> None:
    for name in ("a", "b & 1"):
        picture(data / f"VOC/JPEGImages/{name}.jpg")
        label = data / f"VOC/Annotations/{name}.xml"
        label.parent.mkdir(exist_ok=True)
        label.write_bytes(XML.format(name=f"{name.replace('&', '&amp;')}.jpg").encode("latin-1"))
    picture(data / "VOC/SegmentationClass/a.png", channels=1)
    text(data / "VOC/ImageSets/Main/train.txt", "a\n")
    text(data / "VOC/ImageSets/Main/cat_val.txt", "b\xa0-1\n".replace("\xa0", "  "))


def voc_beside(data: Path) -> None:
    picture(data / "a.jpg")
    text(data / "a.xml", "<annotation><filename>a.jpg</filename></annotation>")


def coco(data: Path) -> None:
    for name in ("train2017/a.jpg", "train2017/b.jpg", "val2017/c.png"):
        picture(data / name)
    entries = [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "licence": None}]
    entries += [{"id": 3, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT}]
    boxes = [
        {"id": 41, "image_id": 7, "category_id": 1, "bbox": [0, 0.1, 20, 15.9], "segmentation": [[0, 0, 1.5, 1, 1, 2]]}
    ]
    boxes += [{"id": 40, "image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 2], "keypoints": [1, 1, 2]}]
    classes = [{"id": 1, "name": "cat"}, {"id": 2, "name": "caf\xe9"}]
    train = {"info": {"year": 2017}, "images": entries, "annotations": boxes, "categories": classes}
    text(data / "annotations/instances_train2017.json", json.dumps(train))
    captions = {"images": entries[:1], "annotations": [{"id": 1, "image_id": 7, "caption": "a cat"}]}
    text(data / "annotations/captions_train2017.json", json.dumps(captions))
    val = {"images": [{"id": 1, "file_name": "c.png"}], "annotations": [], "categories": []}
    text(data / "annotations/instances_val2017.json", json.dumps(val))
    text(data / "other.json", "[1, 2")


def masks(data: Path) -> None:
    for name in ("train/a", "val/b"):
        picture(data / f"images/{name}.jpg")
        picture(data / f"masks/{name}.png", channels=1)


MAKERS: dict[str, Callable[[Path], None]] = {
    "yolo": yolo, "yolo_beside": yolo_beside, "voc": voc, "voc_beside": voc_beside, "coco": coco, "masks": masks,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    MAKERS[request.param](tmp_path / "data")
    return tmp_path / "data"


def of(*names: str) -> Any:
    return pytest.mark.parametrize("data", names, indirect=True)


def augmented(data: Path, models: dict[str, Path], *words: Any, style: str = "monet") -> Tree:
    styles = ",".join(str(models[name]) for name in style.split(","))
    out = data.parent / "out"
    assert script(*on_cpu(styles, data, out), *words) == 0
    return tree(out)


def on_cpu(style: Path | str, data: Path, out: Path) -> tuple[object, ...]:
    """The words of an augmentation that needs nothing but torch."""
    return "--style", style, data, "-o", out, "--device", "cpu", "--runtime", "torch"


def translated(data: Path, name: str, model: Path, tmp_path: Path) -> bytes:
    """The bytes of the translation of a picture, as a file of its own suffix."""
    path = tmp_path / f"expected{Path(name).suffix}"
    images.write(path, load_translator(model, device="cpu", runtime="torch").translate(images.read(data / name)))
    return path.read_bytes()


@of(*MAKERS)
def test_originals_stay_and_copies_are_translations(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    before = tree(data)
    found = augmented(data, models)
    assert tree(data) == before
    lists = {name for name in before if "ImageSets" in name or "annotations/" in name or name == "train.txt"}
    assert {name: found[name] for name in before if name not in lists} == {
        name: content for name, content in before.items() if name not in lists
    }
    copies = set(found) - set(before)
    assert all(Path(name).stem.endswith("_monet") for name in copies)
    pictures = [name for name in before if Path(name).suffix in (".jpg", ".png") and "masks" not in name]
    for name in (name for name in pictures if "Segmentation" not in name):
        copy = Path(name).with_name(f"{Path(name).stem}_monet{Path(name).suffix}").as_posix()
        assert found[copy] == translated(data, name, models["monet"], tmp_path) != before[name]
        copies.remove(copy)
    labels = [name for name in before if Path(name).suffix in (".txt", ".xml") or "masks" in name or "Class" in name]
    alone = [name for name in labels if name not in lists and Path(name).stem not in ("classes", "readme")]
    assert copies == {Path(name).with_name(f"{Path(name).stem}_monet{Path(name).suffix}").as_posix() for name in alone}


@of("yolo")
def test_yolo(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = augmented(data, models, "--split", "train")
    assert "yolo: 3 pictures, 2 with labels, 2 classes; 2 translated copies" in capsys.readouterr().err
    assert found["labels/train/a_monet.txt"] == found["labels/train/a.txt"]
    assert "labels/train/b_monet.txt" not in found and "images/train/b_monet.png" in found
    assert not any("c_monet" in name for name in found)
    out = data.parent / "out"
    listed = (
        f"./images/train/a.jpg\n./images/train/a_monet.jpg\n{data}/images/train/b.png\n{out}/images/train/b_monet.png\n"
    )
    assert found["train.txt"].decode() == listed


@of("masks", "yolo_beside")
def test_labels_are_copied_byte_for_byte(data: Path, models: dict[str, Path]) -> None:
    found = augmented(data, models, "--copies-only", style="monet,ink")
    before = tree(data)
    assert found and all(Path(name).stem.endswith(("_monet", "_ink")) for name in found)
    labels = [name for name in found if name.endswith(".txt") or "masks/" in name]
    assert len(labels) == 4
    for name in labels:
        assert found[name] == before[name.replace("_monet", "").replace("_ink", "")]


@of("voc")
def test_voc(data: Path, models: dict[str, Path]) -> None:
    before, found = tree(data), augmented(data, models, style="monet,ink")
    for style in ("monet", "ink"):
        for name, written in (("a", "a"), ("b & 1", "b &amp; 1")):
            expected = before[f"VOC/Annotations/{name}.xml"].replace(
                f">{written}.jpg<".encode(), f">{written}_{style}.jpg<".encode()
            )
            expected = expected.replace(f"\\{written}.jpg<".encode(), f"\\{written}_{style}.jpg<".encode())
            assert found[f"VOC/Annotations/{name}_{style}.xml"] == expected
        mask = found[f"VOC/SegmentationClass/a_{style}.png"]
        assert mask == before["VOC/SegmentationClass/a.png"]
    assert found["VOC/ImageSets/Main/train.txt"] == b"a\na_monet\na_ink\n"
    assert found["VOC/ImageSets/Main/cat_val.txt"] == b"b  -1\n"


@of("voc")
def test_voc_lists_of_classes_and_splits(data: Path, models: dict[str, Path]) -> None:
    lists = data / "VOC/ImageSets/Main"
    (lists / "cat_val.txt").write_text("a  1\nunknown -1\n")
    found = augmented(data, models, "--split", "train", "--copies-only")
    assert found["VOC/ImageSets/Main/cat_val.txt"] == b"a_monet  1\nunknown -1\n"
    assert {name for name in found if name.endswith((".xml", ".jpg"))} == {
        "VOC/Annotations/a_monet.xml", "VOC/JPEGImages/a_monet.jpg"
    }  # fmt: skip


@of("coco")
def test_coco(data: Path, models: dict[str, Path]) -> None:
    found = augmented(data, models, style="monet,ink")
    name = "annotations/instances_train2017.json"
    before, after = json.loads((data / name).read_bytes()), json.loads(found[name])
    assert list(after) == ["info", "categories", "images", "annotations"]
    assert after["info"] == before["info"] and after["categories"] == before["categories"]
    assert after["images"][:2] == before["images"] and after["annotations"][:2] == before["annotations"]
    new = {"a_monet.jpg": (8, 7), "a_ink.jpg": (9, 7), "b_monet.jpg": (10, 3), "b_ink.jpg": (11, 3)}
    originals = {entry["id"]: entry for entry in before["images"]}
    assert after["images"][2:] == [{**originals[old], "id": key, "file_name": n} for n, (key, old) in new.items()]
    boxes = before["annotations"]
    expected = [{**box, "id": 42 + i, "image_id": 8 + i // 2} for i, box in enumerate([*boxes, *boxes])]
    assert after["annotations"][2:] == expected
    captions = json.loads(found["annotations/captions_train2017.json"])
    assert [entry["file_name"] for entry in captions["images"]] == ["a.jpg", "a_monet.jpg", "a_ink.jpg"]
    assert [a["caption"] for a in captions["annotations"]] == ["a cat"] * 3
    assert len({a["id"] for a in captions["annotations"]}) == 3


@of("coco")
def test_coco_copies_only_of_a_split(data: Path, models: dict[str, Path]) -> None:
    found = augmented(data, models, "--split", "train", "--copies-only")
    train, val = (json.loads(found[f"annotations/instances_{split}2017.json"]) for split in ("train", "val"))
    assert [entry["file_name"] for entry in train["images"]] == ["a_monet.jpg", "b_monet.jpg"]
    assert {a["image_id"] for a in train["annotations"]} == {8} and val["images"] == []
    assert {name for name in found if not name.endswith(".json")} == {
        "train2017/a_monet.jpg", "train2017/b_monet.jpg"
    }  # fmt: skip


@of("masks")
def test_draws_follow_the_seed(data: Path, models: dict[str, Path]) -> None:
    for number in range(18):
        picture(data / f"images/train/more{number}.jpg")
        picture(data / f"masks/train/more{number}.png", channels=1)
    drawn = []
    for run, seed in enumerate((1, 1, 2)):
        out = data.parent / f"out{run}"
        styles = ",".join(map(str, models.values()))
        words = ("--copies", 1, "--fraction", 0.5, "--seed", seed, "--copies-only")
        assert script(*on_cpu(styles, data, out), *words) == 0
        drawn.append(sorted(tree(out / "images")))
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(names) == 10 for names in drawn)
    assert {Path(name).stem.rpartition("_")[2] for name in drawn[0]} == {"monet", "ink"}


BREAKAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a box outside": ("yolo", lambda d: text(d / "labels/train/a.txt", "0 0.9 0.5 0.4 0.1\n"), "line 1: the box 0.9"),
    "a class out of range": ("yolo", lambda d: text(d / "labels/train/a.txt", "\n2 .5 .5 .1 .1"), "class 2: expected"),
    "a word": ("yolo", lambda d: text(d / "labels/train/a.txt", "cat .5 .5 .1 .1"), "expected a class index"),
    "not finite": ("yolo", lambda d: text(d / "labels/train/a.txt", "0 nan .5 .1 .1"), "not finite"),
    "too few": ("yolo", lambda d: text(d / "labels/train/a.txt", "0 .5"), "1 numbers after the class"),
    "no UTF-8": ("yolo", lambda d: (d / "labels/train/a.txt").write_bytes(b"0 \xff"), "a.txt: byte 2 is no UTF-8"),
    "a wrong class by the keys": ("yolo", lambda d: [
        (d / "data.yaml").write_text("names: {person: 0, car: 1}\n"),
        (d / "labels/train/a.txt").write_text("2 .5 .5 .1 .1"),
    ], "class 2: expected 0 to 1"),
    "lonely yolo": ("yolo", lambda d: text(d / "labels/train/x.txt", ""), "x.txt: a label file without a picture"),
    "lonely beside": ("yolo_beside", lambda d: text(d / "x.txt", "0 .5 .5 .1 .1"), "x.txt: a label file without"),
    "two of a name": ("yolo", lambda d: picture(d / "images/train/a.png"), "has the name of a.jpg"),
    "no picture": ("yolo", lambda d: text(d / "images/train/b.png", "hello"), "images/train/b.png: "),
    "lonely xml": ("voc", lambda d: (d / "VOC/JPEGImages/a.jpg").unlink(), "a.xml: a label file without a picture"),
    "no xml": ("voc", lambda d: (d / "VOC/Annotations/a.xml").unlink(), "a.jpg: no .xml has its name"),
    "another size": ("voc_beside", lambda d: text(d / "a.xml", (
        "<annotation><filename>a.jpg</filename><size><width>16</width><height>20</height></size></annotation>"
    )), "says 16x20 pixels; the picture has 20x16"),
    "another name": ("voc_beside", lambda d: text(
        d / "a.xml", "<annotation><filename>b.jpg</filename></annotation>"
    ), "is for 'b.jpg'"),
    "no name": ("voc_beside", lambda d: text(d / "a.xml", "<annotation/>"), "a.xml: has no <filename>"),
    "another root": ("voc_beside", lambda d: text(d / "a.xml", "<note/>"), "a.xml: expected <annotation>"),
    "a box of 3": ("voc_beside", lambda d: text(d / "a.xml", (
        "<annotation><filename>a</filename><object><bndbox><xmin>1</xmin></bndbox></object></annotation>"
    )), "four for each box"),
    "entities": ("voc_beside", lambda d: text(d / "a.xml", (
        '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation><filename>&b;</filename></annotation>'
    )), "a document type (<!DOCTYPE>, <!ENTITY>) is not accepted"),
    "many elements": ("voc_beside", lambda d: text(d / "a.xml", f"<a>{'<b/>' * 600_000}</a>"), "500,000 tags"),
    "deep xml": ("voc_beside", lambda d: text(
        d / "a.xml", f"{'<a>' * 99_999}{'</a>' * 99_999}"
    ), "expected <annotation>"),
    "two names": ("voc_beside", lambda d: text(
        d / "a.xml", "<annotation><filename>a.jpg</filename><x><filename>b</filename></x></annotation>"
    ), "has <filename> or <path> twice"),
    "no xml at all": ("voc_beside", lambda d: text(d / "a.xml", "hello"), "not valid XML"),
    "large": ("voc_beside", lambda d: text(d / "a.xml", " " * (17 << 20)), "too large for labels"),
    "masks of other names": ("masks", lambda d: [
        path.rename(path.with_name(f"{path.stem}_mask.png")) for path in (d / "masks").glob("*/*.png")
    ], "masks/train/a_mask.png: a mask without a picture"),
    "another mask size": ("masks", lambda d: images.write(
        d / "masks/val/b.png", Picture(np.zeros((9, 9, 1), np.uint8))
    ), "b.png has 9x9 pixels, its picture 20x16"),
    "no mask": ("masks", lambda d: (d / "masks/val/b.png").unlink(), "images/val/b.jpg: no mask has its name"),
    "lonely mask": ("masks", lambda d: (d / "images/val/b.jpg").unlink(), "masks/val/b.png: a mask without a picture"),
}  # fmt: skip


LEFT_OUT = {
    "a box outside": ("/a.jpg", "/a.txt"),
    "lonely yolo": ("/x.txt",),
    "no xml": ("/a.jpg",),
    "lonely xml": ("/a.xml",),
    "lonely mask": ("/b.png",),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_labels_that_do_not_match(
    name: str, tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    maker, broken, message = BREAKAGES[name]
    MAKERS[maker](tmp_path / "data")
    broken(tmp_path / "data")
    words = on_cpu(models["monet"], tmp_path / "data", tmp_path / "out")
    assert script(*words) == 4
    said = capsys.readouterr().err
    assert message in said and "--on-bad skip" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
    if name in LEFT_OUT:
        assert script(*words, "--on-bad", "skip") == 3
        said = capsys.readouterr().err
        assert message in said and "labels or pictures were left out; the others are done" in said
        assert "copies failed" not in said
        found = set(tree(tmp_path / "out"))
        assert any("_monet" in name for name in found)
        assert not [path for path in found if path.replace("_monet", "").endswith(LEFT_OUT[name])]


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(data: Path) -> None:
        path = data / "annotations/instances_train2017.json"
        content = json.loads(path.read_bytes())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def _raw(content: str) -> Callable[[Path], None]:
    return lambda data: text(data / "annotations/instances_train2017.json", content)


COCO_BREAKAGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "a box outside": (_changed(lambda c: c["annotations"][0].update(bbox=[5, 5, 20, 2])), "41: the box 5 5", True),
    "a box of 3": (_changed(lambda c: c["annotations"][0].update(bbox=[5, 5, 20])), "expected x, y, width", True),
    "another size": (_changed(lambda c: c["images"][0].update(width=7)), "the picture has 20x16", True),
    "no such image": (_changed(lambda c: c["annotations"][0].update(image_id=99)), "image_id 99 is no", True),
    "no such class": (_changed(lambda c: c["annotations"][0].update(category_id=9)), "category_id 9 is", True),
    "no such file": (_changed(lambda c: c["images"][0].update(file_name="x.jpg")), "x.jpg: no such picture", True),
    "outwards": (_changed(lambda c: c["images"][0].update(file_name="../../x.jpg")), "leads out of", True),
    "an image twice": (_changed(lambda c: c["images"][0].update(id=3)), "1 ids occur twice in 'images'", False),
    "a box twice": (_changed(lambda c: c["annotations"][0].update(id=40)), "1 ids occur twice in 'annotations'", False),
    "a picture twice": (_changed(lambda c: c["images"][0].update(file_name="b.jpg")), "1 pictures occur twice", False),
    "an id of text": (_changed(lambda c: c["images"][0].update(id="7")), "a whole number as its id", False),
    "damaged": (_raw('{"images": [], "annotations": ['), "not valid JSON", False),
    "deep": (_raw('{"images": [], "annotations": ' + "[" * 100_000), "not valid JSON", False),
    "long": (_raw('{"images": [], "annotations": [' + "9" * 10_000 + "]}"), "not valid JSON", False),
    "400 digits": (_changed(lambda c: c["annotations"][0].update(bbox=[10**400, 1, 1, 1])), "expected x, y, w", True),
    "an id without next": (_changed(lambda c: c["images"][0].update(id=10**4299)), "a whole number as its id", False),
    "infinite": (_raw('{"images": [], "annotations": [], "info": 1e999}'), "1e999 is no finite number", False),
    "NaN": (_raw('{"images": [], "annotations": [NaN]}'), "NaN is no finite number", False),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO_BREAKAGES)
def test_coco_that_does_not_match(
    name: str, tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, message, mendable = COCO_BREAKAGES[name]
    coco(tmp_path / "data")
    broken(tmp_path / "data")
    words = on_cpu(models["monet"], tmp_path / "data", tmp_path / "out")
    assert script(*words) == 4
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
    if mendable or name == "damaged":
        assert script(*words, "--on-bad", "skip") == (3 if mendable else 4)
    if mendable:
        found = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_bytes())
        ids = {entry["id"] for entry in found["images"]}
        assert {a["image_id"] for a in found["annotations"]} <= ids
        assert all((tmp_path / "out/train2017" / entry["file_name"]).is_file() for entry in found["images"])


@of("yolo")
def test_the_first_ten_are_named(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(13):
        text(data / f"labels/train/x{number:02}.txt", "")
    assert script("--style", models["monet"], data, "-o", data.parent / "out") == 4
    said = capsys.readouterr().err
    assert "13 labels or pictures do not match" in said and "x09.txt" in said
    assert "x10.txt" not in said and "and 3 more" in said


@of("masks")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--style", "STYLE", "DATA"], 2, "expected: i2i augment --style"),
        (["DATA", "-o", "OUT"], 2, "expected: i2i augment --style"),
        (["--style", "STYLE", "DATA", "DATA", "-o", "OUT"], 2, "expected: i2i augment --style"),
        (["--style", "no_such", "DATA", "-o", "OUT"], 2, "no such style"),
        (["--style", "STYLE", "DATA", "-o", "DATA"], 2, "choose another folder"),
        (["--style", "STYLE", "DATA", "-o", "DATA/inside"], 2, "choose another folder"),
        (["--style", "STYLE", "DATAS", "-o", "OUT"], 4, "no such folder. Did you mean 'data'?"),
        (["--style", "STYLE", "DATA/images", "-o", "OUT"], 4, "no labels found beside 2 pictures; expected labels"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--layout", "yolo"], 4, "no yolo labels found"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--copies", "2"], 2, "copies = 2"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--split", "trian"], 2, "Did you mean 'train'?"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--fraction", "0"], 2, "fraction"),
        (["--style", "STYLE,STYLE", "DATA", "-o", "OUT"], 2, "several styles have the name 'monet'"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--names", "a/b"], 2, "'a/b' cannot be a part of file names"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--names", "a,b"], 2, "one for each of 1 styles"),
        (["--style", "STYLE", "DATA", "-o", "OUT", "--overwrite", "--skip-existing"], 2, "contradict each other"),
    ],
)
def test_mistakes(
    data: Path, models: dict[str, Path], words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = {"STYLE": models["monet"], "DATA": data, "OUT": data.parent / "out"}
    for key, value in place.items():
        words = [word.replace(key, str(value)) for word in words]
    before = tree(data)
    assert script(*words) == code
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert tree(data) == before and not (data.parent / "out").exists()


@of("masks")
def test_a_style_that_makes_labels(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = init_weights(ResnetConfig(out_channels=2, width=2, blocks=0).build(), gain=0.3)
    labels = describe(network, direction="a2b", output_palette=palettes.find("2"))
    model_file.save(tmp_path / "labels.safetensors", network, labels)
    assert script("--style", str(tmp_path / "labels.safetensors"), str(data), "-o", str(tmp_path / "out")) == 2
    assert "makes labels of pictures" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_labels_of_several_kinds(tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    yolo(tmp_path / "data")
    coco(tmp_path / "data")
    words = on_cpu(models["monet"], tmp_path / "data", tmp_path / "out")
    assert script(*words) == 2
    assert "labels of several kinds, choose one with --layout: coco: 3 pictures" in capsys.readouterr().err
    assert script(*words, "--layout", "yolo") == 0
    found = tree(tmp_path / "out")
    assert (
        found["annotations/instances_train2017.json"] == tree(tmp_path / "data")["annotations/instances_train2017.json"]
    )
    assert "images/train/a_monet.jpg" in found and "train2017/a_monet.jpg" not in found


@of("coco")
def test_existing_outputs(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    whole = augmented(data, models)
    words = on_cpu(models["monet"], data, data.parent / "out")
    assert script(*words) == 2
    assert "are there already; use --overwrite or --skip-existing" in capsys.readouterr().err
    (data.parent / "out/train2017/a_monet.jpg").unlink()
    (data.parent / "out/train2017/b.jpg").write_bytes(b"mine")
    assert script(*words, "--skip-existing", "--json") == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts == {"done": 1, "skipped": 2, "failed": 0, "left": 0}
    assert tree(data.parent / "out") == {**whole, "train2017/b.jpg": b"mine"}
    assert script(*words, "--overwrite") == 0
    assert tree(data.parent / "out") == whole


@of("yolo", "coco")
def test_an_existing_picture_of_the_name_of_a_copy(
    data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data / ("images/train" if (data / "images").exists() else "train2017")
    (folder / "a_monet.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert script("--style", models["monet"], data, "-o", data.parent / "out") == 2
    assert "would have the name of another one" in capsys.readouterr().err


@of("voc")
def test_a_dry_run_writes_nothing(data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--style", models["monet"], data, "-o", data.parent / "out", "--dry-run")
    assert script(*words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"{data}/VOC/JPEGImages/a.jpg → {data.parent}/out/VOC/JPEGImages/a_monet.jpg"
    assert said.err.startswith("voc: 2 pictures, 2 with labels; 2 translated copies, 5 files as they are")
    assert script(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["left"] == 2
    assert not (data.parent / "out").exists()


@of("coco", "yolo", "masks")
def test_a_picture_that_fails_leaves_no_label(
    data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(data.rglob("a.jpg"))
    path.write_bytes(path.read_bytes()[:-300])
    assert script(*on_cpu(models["monet"], data, data.parent / "out")) == 3
    assert "1 failed" in capsys.readouterr().err
    found = tree(data.parent / "out")
    assert not [name for name in found if "a_monet" in name] and any("_monet" in name for name in found)
    assert not any(b"a_monet" in content for name, content in found.items() if name.endswith((".json", ".txt")))


@pytest.mark.parametrize(
    ("data", "number"),
    [("coco", signal.SIGINT), ("yolo", signal.SIGTERM), ("voc", signal.SIGINT), ("masks", signal.SIGINT)],
    indirect=["data"],
)
def test_interrupted_and_gone_on(
    data: Path,
    models: dict[str, Path],
    number: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = augmented(data, models)
    out = data.parent / "second"
    words = on_cpu(models["monet"], data, out)
    translate = Translator.translate_batch

    signals = [number]  # one: a second one ends the process

    def then_stop(this: Translator, pictures: Any, size: int | None = None) -> Any:
        if signals:
            signal.raise_signal(signals.pop())
        return translate(this, pictures, size)

    monkeypatch.setattr(Translator, "translate_batch", then_stop)
    assert script(*words) == (130 if number == signal.SIGINT else 143)
    assert "the same command with --skip-existing goes on" in capsys.readouterr().err
    partly = tree(out)
    pictures = [name for name in partly if "_monet" in name and Path(name).suffix in (".jpg", ".png")]
    assert len([name for name in pictures if "mask" not in name and "Seg" not in name]) == 1
    labels = [name for name in partly if "_monet" in name and Path(name).suffix in (".txt", ".xml")]
    assert {Path(name).stem for name in labels} <= {Path(name).stem for name in pictures}
    assert not any("ImageSets" in name or name.endswith("2017.json") for name in partly)
    monkeypatch.undo()
    assert script(*words, "--skip-existing") == 0
    renamed = {name: content.replace(bytes(data.parent / "out"), bytes(out)) for name, content in whole.items()}
    assert tree(out) == renamed


@of("yolo")
def test_a_label_is_there_before_its_picture(data: Path, models: dict[str, Path]) -> None:
    out = data.parent / "out"

    def look(*_: object) -> None:
        for path in out.glob("images/**/*.jpg"):
            assert Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt").exists()
        assert not (out / "train.txt").exists()

    stops = iter(lambda: bool(look()), True)
    report = augment_folder(
        data, out, [str(models["monet"])], progress=look, stop=lambda: next(stops), device="cpu", runtime="torch"
    )
    assert len(report.done) == 3 and (out / "train.txt").exists()


def test_xml_as_it_is_written_elsewhere() -> None:
    for encoding, mark in (("utf-8", ""), ("utf-8", "\ufeff"), ("iso-8859-1", ""), ("windows-1252", "")):
        start = f"{mark}<?xml version='1.0' encoding='{encoding}'?><annotation><path x='/>'/><filename >"
        source = f"{start} C:\\\xe9\\\xe9.jpg\n</filename ><name>\xe9</name></annotation>".encode(encoding)
        changed = by_picture.named(source, "<\u4e16\xe9>.jpg")
        assert by_picture.parse(changed).findtext("filename") == "C:\\\xe9\\<\u4e16\xe9>.jpg"
        assert changed.startswith(start.encode(encoding))
        assert changed.endswith("</filename ><name>\xe9</name></annotation>".encode(encoding))
    for wrong in ("<a>", "", "<a/><a/>", "<?xml version='1.0' encoding='nonsense'?><a/>"):
        with pytest.raises(InputError, match="not valid XML"):
            by_picture.parse(wrong.encode())
    for encoding in ("gbk", "gb2312", "shift_jis", "punycode"):
        with pytest.raises(InputError, match="not valid XML"):
            by_picture.parse(f"<?xml version='1.0' encoding='{encoding}'?><a/>".encode())
    with pytest.raises(InputError, match="UTF-8"):
        by_picture.parse("<a/>".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("names: [a, b]\nnc: 7\n", 2),
        ("names: {0: a, 4: b}", 5),
        ("names: {person: 0, car: 1}", 2),
        ("names: {.inf: a, ~: b}", 2),
        ("names: []\nnc: 3", 3),
        ("nc: true", None),
        ("nc: -1", None),
        ("nc: many", None),
        (f"nc: {10**400}", None),
        (f"names: {{{10**400}: a}}", None),
        ("- a", None),
    ],
)
def test_classes_of_a_data_yaml(content: str, count: int | None, tmp_path: Path) -> None:
    text(tmp_path / "data.yaml", content)
    assert by_picture.count_classes(tmp_path / "data.yaml") == count


@of("yolo")
def test_absolute_places_of_a_data_yaml_are_those_of_the_output(data: Path, models: dict[str, Path]) -> None:
    """Otherwise a training on the output would read the input."""
    content = (
        "# {0}\r\npath: {0}  # the root\r\ntrain: ['{0}/images/train', images]\r\n"
        'val: "{0}/images/val/"\r\ntest: /elsewhere\r\nnames: [cat, dog]\r\ndownload: {0}\r\n'
    )
    (data / "data.yaml").write_bytes(content.format(data).encode())
    found, out = augmented(data, models)["data.yaml"].decode(), data.parent / "out"
    expected = content.replace("path: {0}", 'path: "{1}"').replace("'{0}/images/train'", '"{1}/images/train"')
    assert found == expected.replace("{0}/images/val/", "{1}/images/val").format(data, out)
    text(data / "data.yaml", f"path: |\n  {data}/x\ntrain: ../images\n")
    assert by_picture.moved(data / "data.yaml", data, out) is None


@of("coco")
def test_coco_sizes_may_be_null(data: Path, models: dict[str, Path]) -> None:
    _changed(lambda content: content["images"][0].update(width=None, height=None))(data)
    found = json.loads(augmented(data, models)["annotations/instances_train2017.json"])
    assert [entry["width"] for entry in found["images"]] == [None, WIDTH, None, WIDTH]


def without_labels(out: Path) -> list[Path]:
    """Copies without a label, which would be background."""
    labels = {path.stem for path in out.glob("labels/**/*.txt")}
    return [path for path in out.glob("images/**/[ac]_monet.jpg") if path.stem not in labels]


@of("yolo")
def test_overwriting_never_leaves_a_picture_without_its_label(
    data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = augmented(data, models)
    out = data.parent / "out"
    words = on_cpu(models["monet"], data, out)
    translate = Translator.translate_batch
    pictures: list[Path] = []
    signals = [signal.SIGINT]  # one: a second one ends the process

    def then_stop(this: Translator, batch: Any, size: int | None = None) -> Any:
        pictures.extend(out.glob("images/**/*_monet.*"))  # a kill at this place would leave these
        if signals:
            signal.raise_signal(signals.pop())
        return translate(this, batch, size)

    monkeypatch.setattr(Translator, "translate_batch", then_stop)
    assert script(*words, "--overwrite") == 130
    assert not pictures and not without_labels(out) and not (out / "train.txt").exists()
    monkeypatch.undo()
    assert script(*words, "--skip-existing") == 0
    assert tree(out) == whole
    path = data / "images/train/a.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    assert script(*words, "--overwrite") == 3
    assert "1 of 3 copies failed; the others are done" in capsys.readouterr().err
    found = tree(out)
    assert not without_labels(out) and not [name for name in found if "a_monet" in name]
    assert b"a_monet" not in found["train.txt"]


@of("yolo")
def test_a_picture_that_is_there_keeps_the_label_that_it_lacked(data: Path, models: dict[str, Path]) -> None:
    augmented(data, models)
    out = data.parent / "out"
    (out / "labels/train/a_monet.txt").unlink()

    def stop() -> bool:
        return (out / "labels/train/a_monet.txt").exists()

    augment_folder(data, out, [str(models["monet"])], skip_existing=True, stop=stop, device="cpu", runtime="torch")
    assert not without_labels(out)


def test_progress_counts_over_all_styles(tmp_path: Path, models: dict[str, Path]) -> None:
    masks(tmp_path / "data")
    seen: list[tuple[int, int]] = []
    augment_folder(
        tmp_path / "data",
        tmp_path / "out",
        [str(path) for path in models.values()],
        progress=lambda number, total, _: seen.append((number, total)),
        device="cpu",
        runtime="torch",
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_commands_of_the_documentation(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text()
    commands = [line.split()[2:] for line in documentation.splitlines() if line.startswith("i2i augment ")]
    assert len(commands) == 4
    yolo(tmp_path / "data")
    for name in ("night", "rain"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "a2b.safetensors").write_bytes(models["monet"].read_bytes())
    monkeypatch.chdir(tmp_path)
    for words in commands:
        assert script(*words, "--dry-run") == 0
    assert "augmented/images/train/a_night.jpg" in capsys.readouterr().out


def two_rows(data: Path, name: str, label: str) -> None:
    picture(data / name)
    text(data / label, "0 0.5 0.5 0.2 0.2\n")


def test_each_picture_has_its_label_in_its_own_way(tmp_path: Path, models: dict[str, Path]) -> None:
    data = tmp_path / "data"
    for name, label in (
        ("a/images/1.png", "a/labels/1.txt"),
        ("b/2.png", "b/2.txt"),
        ("c/images/3.png", "c/images/3.txt"),
    ):
        two_rows(data, name, label)
    picture(data / "a/images/background.png")
    report = augment_folder(data, tmp_path / "out", [str(models["monet"])])
    made = {path for path in tree(tmp_path / "out") if "monet" in path}
    assert {path for path in made if path.endswith(".txt")} == {
        "a/labels/1_monet.txt",
        "b/2_monet.txt",
        "c/images/3_monet.txt",
    }
    assert len(report.records) == 4 and len(made) == 7
    text(data / "a/images/1.txt", "0 0.1 0.1 0.1 0.1\n")
    with pytest.raises(InputError, match=r"a/images/1\.txt: its picture has a/labels/1\.txt"):
        augment_folder(data, tmp_path / "other", [str(models["monet"])])


def test_lists_of_yolo_written_on_windows(tmp_path: Path, models: dict[str, Path]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    yolo(data)
    text(data / "train.txt", "images\\train\\a.jpg\r\nC:\\sets\\images\\train\\b.png\r\n")
    augment_folder(data, out, [str(models["monet"])])
    assert (out / "train.txt").read_text().splitlines() == [
        "images\\train\\a.jpg",
        "images\\train\\a_monet.jpg",
        "C:\\sets\\images\\train\\b.png",
        str(out / "images/train/b_monet.png"),
    ]


def test_the_lists_of_two_roots_name_their_own_pictures(tmp_path: Path, models: dict[str, Path]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for site, train in (("site1", "01"), ("site2", "23")):
        for name in "0123":
            picture(data / f"{site}/JPEGImages/{name}.jpg")
            text(data / f"{site}/Annotations/{name}.xml", XML.format(name=f"{name}.jpg"))
        held_out = "".join(sorted(set("0123") - set(train)))
        for split, names in (("train", train), ("val", held_out)):
            text(data / f"{site}/ImageSets/Main/{split}.txt", "".join(f"{name}\r\n" for name in names))
        text(data / f"{site}/ImageSets/Main/odd.txt", f"JPEGImages\\{train[0]}.jpg 1\n")
    augment_folder(data, out, [str(models["monet"])], split="train")
    for site, train in (("site1", "01"), ("site2", "23")):
        lists = {path.stem: path.read_text().split("\n") for path in (out / site / "ImageSets/Main").iterdir()}
        assert lists["train"] == [line for name in train for line in (name, f"{name}_monet")] + [""]
        assert not any("monet" in line for line in lists["val"])
        assert lists["odd"] == [f"JPEGImages\\{train[0]}.jpg 1", f"JPEGImages\\{train[0]}_monet.jpg 1", ""]
    assert len([name for name in tree(out) if name.endswith("_monet.jpg")]) == 4


def test_a_list_does_not_name_a_picture_of_another_root(tmp_path: Path) -> None:
    """Even where its own root lacks that picture."""
    for site, names in (("site1", "12"), ("site2", "1")):
        for name in names:
            picture(tmp_path / f"{site}/JPEGImages/{name}.jpg")
            text(tmp_path / f"{site}/Annotations/{name}.xml", XML.format(name=f"{name}.jpg"))
    text(tmp_path / "site2/ImageSets/Main/train.txt", "1\n2\n")
    for lists in ({"site2"}, {"site1", "site2"}):
        text(tmp_path / f"{min(lists)}/ImageSets/Main/val.txt", "1\n")
        layout = by_picture.Voc(tmp_path, sorted(map(Path, tree(tmp_path))))
        training = [str(path) for path in layout.items if "train" in layout.splits(path)]
        assert training == ["site2/JPEGImages/1.jpg"]


def coco_of(data: Path, file_name: str, boxes: list[list[float]]) -> None:
    picture(data / "images/0.png")
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    content = {
        "images": [{"id": 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}],
    }
    text(data / "result.json", json.dumps(content))


def test_an_empty_coco_box_is_left_out_and_its_picture_stays(tmp_path: Path, models: dict[str, Path]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    coco_of(data, "images/0.png", [[1, 1, 5, 5], [3, 3, 5, 0], [3, 3, 0, 5]])
    with pytest.raises(InputError, match=r"annotations/1: the box 3 3 5 0 \(x, y, width, height\) is empty"):
        augment_folder(data, out, [str(models["monet"])])
    report = augment_folder(data, out, [str(models["monet"])], on_bad="skip")
    made = json.loads((out / "result.json").read_text())
    assert [image["file_name"] for image in made["images"]] == ["images/0.png", "images/0_monet.png"]
    assert [annotation["bbox"] for annotation in made["annotations"]] == [[1, 1, 5, 5]] * 2
    assert any("is empty" in notice for notice in report.notices)


def test_an_absolute_coco_path_into_the_folder_leads_to_the_output(tmp_path: Path, models: dict[str, Path]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    coco_of(data, str(data / "images/0.png"), [[1, 1, 5, 5]])
    augment_folder(data, out, [str(models["monet"])])
    names = [image["file_name"] for image in json.loads((out / "result.json").read_text())["images"]]
    assert names == [str(out / "images/0.png"), str(out / "images/0_monet.png")]
    for wrong in (str(tmp_path / "images/0.png"), "..\\..\\images\\0.png"):
        coco_of(data, wrong, [])
        with pytest.raises(InputError, match="leads out of the folder"):
            augment_folder(data, tmp_path / "other", [str(models["monet"])])


def test_a_dense_file_of_coco_is_parsed(tmp_path: Path, models: dict[str, Path]) -> None:
    """As those of the published sets are: polygons of short numbers, annotations of few words."""
    data, out = tmp_path / "data", tmp_path / "out"
    coco_of(data, "images/0.png", [[1, 1, 5, 5]])
    content = json.loads((data / "result.json").read_text())
    content["annotations"] = [
        {"id": i, "image_id": 1, "segmentation": [[float(j % 20) for j in range(2000)]]} for i in range(300)
    ]
    text(data / "result.json", json.dumps(content, separators=(",", ":")))
    augment_folder(data, out, [str(models["monet"])])
    assert len(json.loads((out / "result.json").read_text())["annotations"]) == 600


def test_links_to_folders_are_reported(tmp_path: Path, models: dict[str, Path]) -> None:
    data = tmp_path / "data"
    yolo(data)
    (data / "more").symlink_to(tmp_path)
    (data / "gone.jpg").symlink_to("nowhere")
    report = augment_folder(data, tmp_path / "out", [str(models["monet"])])
    assert list(report.notices) == [
        f"1 link of {data} leads nowhere: gone.jpg",
        f"1 link of {data} leads to a folder, and is not followed: more",
    ]


def test_no_style_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one style"):
        augment_folder(tmp_path, tmp_path / "out", [])


@pytest.mark.parametrize(
    ("original", "place"),
    [("a/b.jpg", "a/b_x.jpg"), ("a\\b", "a\\b_x"), ("/d/b.jpg", "{0}/p/b_x.jpg"), ("/d/b.1", "{0}/p/b_x")],
)
def test_a_copy_is_named_as_its_original(original: str, place: str, tmp_path: Path) -> None:
    assert layout.place_of(Path("p/b_x.jpg"), original, tmp_path) == place.format(tmp_path)
