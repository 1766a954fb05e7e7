"""Which pictures a run is of: the same ones elsewhere, changed ones, and others, which are refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_folders import write_folder

from i2i import images
from i2i.data.datasets import open_datasets
from i2i.errors import ModelError
from i2i.images import Picture
from i2i.training.data_identity import DataIdentity
from i2i.training.options import RunOptions


def seen(data: Path, **options: Any) -> DataIdentity:
    given = RunOptions(**{"data": data, "crop_size": 16, "load_size": 16, **options})
    return DataIdentity(open_datasets(given, paired=False), given)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", "unpaired", count=4, size=16)
    return tmp_path / "photos"


def told(photos: Path, before: dict[str, Any], data_before: Path | None = None, **options: Any) -> list[str]:
    return seen(photos, **options).compare(before, 9, data_before)


def test_the_same_pictures_elsewhere_are_the_same(photos: Path) -> None:
    state = seen(photos).state()
    assert told(photos, state) == []
    moved = photos.rename(photos.with_name("moved"))
    assert told(moved, state, photos) == []


def test_added_and_removed_pictures_are_counted(photos: Path) -> None:
    state = seen(photos).state()
    first_of = {path.name: next(iter(sorted(path.iterdir()))) for path in photos.iterdir()}
    one = first_of["trainB"].read_bytes()
    first_of["trainA"].unlink()
    first_of["testB"].unlink()
    for place in ("trainA/x.png", "trainA/y.png", "testB/z.png"):
        (photos / place).write_bytes(one)
    first_of["trainB"].write_bytes(one + b"\0")
    found = told(photos, state)
    assert "training pictures of A: of 4 1 gone, 2 new, now 5" in found
    assert "training pictures of B: of 4 1 changed, now 4" in found
    assert "held-out pictures of B: of 1 1 gone, 1 new, now 1; the best so far was measured on those before" in found
    assert "an epoch had 4 pictures, has now 5: epoch 3 becomes 2" in found
    with pytest.raises(ModelError, match=r"data was elsewhere, is now .*these are other pictures .*; init_from takes"):
        told(photos, state, Path("elsewhere"))


@pytest.mark.promise("R15")
def test_another_data_set_is_refused(photos: Path) -> None:
    state = seen(photos).state()
    other = photos.with_name("other")
    write_folder(other, "unpaired", count=4, size=32, seed=7)
    with pytest.raises(ModelError, match=r"data was .*photos, is now .*other, and these are other pictures") as refused:
        told(other, state, photos)
    assert "init_from takes weights alone" in str(refused.value)
    with pytest.raises(ModelError, match="it would be another data set"):
        told(other, state)
    with pytest.raises(ModelError, match="it would be another data set"):
        told(photos, seen(Path("toy")).state())
    with pytest.raises(ModelError, match="it would be another data set"):
        told(Path("toy"), state)


def test_pictures_of_one_size_differ_by_their_content(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes().ljust(2000, b"\0"))
    state = seen(photos).state()
    for path in (photos / "trainB").iterdir():
        path.write_bytes((photos / "trainA" / path.name).read_bytes())
    with pytest.raises(ModelError, match="none of the training pictures of B"):
        told(photos, state)


def test_the_same_list_of_pictures_however_its_path_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = (sorted((photos / side).iterdir()) for side in ("trainA", "trainB"))

    def listed(rows: list[tuple[Path, Path]], data: Path = Path("photos/p.csv")) -> DataIdentity:
        (photos / "p.csv").write_text("".join(f"{x},{y}\n" for x, y in [("a", "b"), *rows]))
        given = RunOptions(data=data, crop_size=16, load_size=16)
        return DataIdentity(open_datasets(given, paired=True), given)

    Path("link").symlink_to("photos")
    state = listed(list(zip(a, b, strict=True))).state()
    for data in (photos / "p.csv", Path("link/p.csv"), Path("photos/../photos/p.csv")):
        assert listed(list(zip(a, b, strict=True)), data).compare(state, 9, Path("photos/p.csv")) == []
    relative = [(Path("trainA") / x.name, Path("trainB") / y.name) for x, y in zip(a, b, strict=True)]
    assert listed(relative, photos / "p.csv").compare(state, 9, None) == []


def test_the_same_pictures_under_other_names_are_the_same(photos: Path) -> None:
    state = seen(photos).state()
    for path in list(photos.rglob("*.png")):
        path.rename(path.with_name(f"new {path.name}"))
    found = told(photos.rename(photos.with_name("moved")), state, photos)
    assert "training pictures of A: the same ones in other places" in found
    moved = photos.with_name("moved")
    for path in (moved / "trainB").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="these are other pictures"):
        told(moved, state, photos)


@pytest.mark.promise("R15")
def test_other_pairs_are_refused(photos: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_folder(one, "paired", count=3, size=16)
    write_folder(other, "paired", count=3, size=16, seed=7)

    def mixed(pairs: Path | None) -> DataIdentity:
        given = RunOptions(data=photos, paired_data=pairs, crop_size=16, load_size=16)
        return DataIdentity(open_datasets(given, paired=False), given)

    state = mixed(one).state()
    assert mixed(one).compare(state, 9, None) == []
    with pytest.raises(ModelError, match=r"^paired_data was .*one, is now .*other, and these are other pictures"):
        mixed(other).compare(state, 9, None, one)
    with pytest.raises(ModelError, match=r"^paired_data was .*one, is now None"):
        mixed(None).compare(state, 9, None, one)


@pytest.mark.promise("R15")
def test_another_augmentation_is_reported(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- Rotate: {limit: 10}")
    state = seen(photos, augment=str(tmp_path / "own.yaml")).state()
    assert told(photos, state, augment='[{"Rotate": {"limit": 10}}]') == [], "the same, wherever it is written"
    (tmp_path / "own.yaml").write_text("- Rotate: {limit: 20}")
    (note,) = told(photos, state, augment=str(tmp_path / "own.yaml"))
    assert note == 'augment: training crops go through another pipeline: [["Rotate", {"limit": 20}]]'
    assert told(photos, state) == ["augment: training crops go through another pipeline: none"]


@pytest.mark.promise("R15")
def test_labels_that_would_swap_are_refused(tmp_path: Path) -> None:
    palette = tmp_path / "p.txt"
    palette.write_text("#000000\n#ffffff\n")

    def of_classes(**options: Any) -> DataIdentity:
        given = RunOptions(data=Path("toy"), classes_b=str(palette), **options)
        return DataIdentity(SimpleNamespace(train=[0], validation=None), given)  # type: ignore[arg-type]

    state = of_classes().state()
    assert of_classes().compare(state, 1, None) == []
    palette.write_text("#ffffff\n#000000\n")
    with pytest.raises(ModelError, match=r"classes_b: class 0 was \(0, 0, 0\), is now \(255, 255, 255\)"):
        of_classes().compare(state, 1, None)


@pytest.mark.promise("R15")
@pytest.mark.parametrize("check", ["auto", "off"])
def test_labels_that_would_be_read_by_another_rule_are_refused(check: str, tmp_path: Path) -> None:
    """An added picture may turn colours into indices: no colour is another one then."""
    (tmp_path / "two.txt").write_text("#ffffff\n#000000\n")
    for i, colour in enumerate((0, 255)):
        for side, mask in (("A", np.zeros((16, 16, 3), np.uint8)), ("B", np.full((16, 16, 1), colour, np.uint8))):
            path = tmp_path / "data" / f"train{side}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, Picture(mask))
    given = {"classes_b": str(tmp_path / "two.txt"), "check": check}
    state = seen(tmp_path / "data", **given).state()
    assert state["rules"] == {"classes_b": "colours"} and told(tmp_path / "data", state, **given) == []
    images.write(tmp_path / "data/trainB/2.png", Picture(np.ones((16, 16, 1), np.uint8)))
    with pytest.raises(ModelError, match="classes_b: pictures of one channel held colours, now indices"):
        told(tmp_path / "data", state, **given)
