"""prepare_dataset.py: looking at data sets, putting pairs together and apart, dividing."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code
from disks import listed

from i2i import images
from i2i.errors import InputError, UsageError
from i2i.images import Picture
from i2i.images.png import chunk
from i2i.tools.datasets import fetch as fetching
from i2i.tools.datasets.inspect import as_json, as_text, difference_hash, inspect
from i2i.tools.datasets.pairs import combine, separate
from i2i.tools.datasets.shape import split_dataset

script = partial(exit_code, "prepare-dataset")


def picture(seed=0, width=12, height=8, channels=3, dtype=np.uint8, alpha=False):
    dice = np.random.default_rng(seed)
    full = np.iinfo(dtype).max + 1
    pixels = dice.integers(0, full, (height, width, channels), dtype)
    return Picture(pixels, dice.integers(0, full, (height, width), dtype) if alpha else None)


def make(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, picture(seed, **options))
    return path


@pytest.fixture
def unpaired(tmp_path):
    for number in range(4):
        make(tmp_path / f"trainA/{number}.png", number)
        make(tmp_path / f"trainB/{number + 4}.png", number + 4, height=20)
        make(tmp_path / f"testA/{number + 8}.png", number + 8)
    return tmp_path


def test_check_of_a_good_set(unpaired, capsys):
    assert script("check", unpaired) == 0
    said = capsys.readouterr().out
    assert "unpaired" in said and "i2i train cyclegan" in said and "formats" not in said and "damaged: none" in said
    assert "trainA         4 pictures  12x8; 4 smaller than 256" in said
    assert script("--check", unpaired, "--json", "--full") == 0
    found = json.loads(capsys.readouterr().out)
    assert [group["pictures"] for group in found["groups"]] == [4, 4, 4]
    assert found["groups"][1]["smallest"] == [12, 20] and found["groups"][0]["formats"] == {"PNG": 4}
    assert found["groups"][0]["depths"] == {"uint8": 4} and found["groups"][0]["channels"] == {"3": 4}


def test_check_finds_damage(unpaired, capsys):
    for number in range(30):
        make(unpaired / f"trainA/more{number}.png", 100 + number)
    damaged = unpaired / "trainA" / "2.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert script("check", unpaired, "--full") == 3
    assert "damaged: 1\n  trainA/2.png: " in capsys.readouterr().out
    damaged.write_bytes(b"")
    assert script("check", unpaired) == 3
    for number in range(5):
        (unpaired / f"trainA/more{number}.png").write_bytes(b"no picture")
    assert script("check", unpaired) == 4
    assert "more than the 5%" in capsys.readouterr().err


def test_check_finds_copies(unpaired):
    (unpaired / "testA" / "copy.png").write_bytes((unpaired / "trainA" / "0.png").read_bytes())
    (unpaired / "trainB" / "copy.png").write_bytes((unpaired / "trainB" / "5.png").read_bytes())
    images.write(unpaired / "testA" / "1.tif", images.read(unpaired / "trainA" / "1.png"))
    report = inspect(unpaired)
    assert report.exit_code == 0
    assert [copies["splits"] for copies in report.duplicates] == [["test", "train"], ["train"]]
    full = inspect(unpaired, full=True)
    assert len(full.duplicates) == 3
    text = as_text(full)
    assert "duplicates between splits: 2\n  trainA/0.png = testA/copy.png\n  trainA/1.png = testA/1.tif\n" in text
    assert "duplicates within one split: 1\n  trainB/5.png = trainB/copy.png\n" in text
    for number in range(4):
        (unpaired / "trainB" / f"copy{number}.png").write_bytes((unpaired / "trainB" / "5.png").read_bytes())
    assert "trainB/copy1.png = 2 more\n" in as_text(inspect(unpaired))


def smooth(seed, size=64):
    """A picture with large forms, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    y = np.linspace(0, 2.999, size)
    low, part = y.astype(int), (y % 1)[:, None, None]
    rows = coarse[low] * (1 - part) + coarse[low + 1] * part
    part = (y % 1)[None, :, None]
    return Picture(np.rint(rows[:, low] * (1 - part) + rows[:, low + 1] * part).astype(np.uint8))


def test_near_duplicates(tmp_path):
    for number in range(6):
        (tmp_path / "train").mkdir(exist_ok=True)
        images.write(tmp_path / f"train/{number}.png", smooth(number))
        images.write(tmp_path / f"train/{number} again.jpg", smooth(number), 90)
    report = inspect(tmp_path, full=True)
    assert not report.duplicates and len(report.near_duplicates) >= 4
    files = [copies["files"] for copies in report.near_duplicates]
    assert all(Path(b).stem + " again" == Path(a).stem for a, b in files)
    assert "near-duplicates (by difference hash, may err) within one split: " in as_text(report)
    assert difference_hash(Picture(np.full((9, 9, 3), 7, np.uint8))) is None


LAYOUTS = {
    "side by side": (["train/1.png", "val/1.png"], 0),
    "train/A": (["train/A/1.png", "train/B/1.png", "test/A/1.png", "test/B/1.png"], 0),
    "A/train": (["A/train/s/1.png", "B/train/s/1.png"], 0),
    "A": (["A/1.png", "B/1.png"], 0),
    "no B": (["trainA/1.png"], 4),
    "only test": (["testA/1.png", "testB/1.png"], 4),
    "plain": (["1.png", "sub/2.png"], 4),
    "alone": (["A/1.png", "B/1.png", "B/2.png"], 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_check_of_layouts(tmp_path, name):
    files, code = LAYOUTS[name]
    for number, file in enumerate(files):
        make(tmp_path / file, number)
    report = inspect(tmp_path)
    assert report.exit_code == code
    assert sum(group["pictures"] for group in report.groups) == len(files)
    if name == "alone":
        assert report.without_partner == {"A, B": ["B/2.png"]}


def test_check_of_both_layouts_in_one_folder(tmp_path):
    for name in ("train/1.png", "trainA/1.png", "trainB/1.png"):
        make(tmp_path / name)
    report = inspect(tmp_path)
    assert [group["name"] for group in report.groups] == ["train", "trainA", "trainB"]
    assert "all names match" in report.remarks[0]


def test_check_of_pairs(tmp_path):
    make(tmp_path / "train/1.png", width=13)
    assert inspect(tmp_path).odd_width == ["train/1.png"] and inspect(tmp_path).exit_code == 3
    make(tmp_path / "two/A/1.png")
    make(tmp_path / "two/B/1.png", height=9)
    assert inspect(tmp_path / "two").unequal_sizes == [["A/1.png", "B/1.png"]]


def test_check_of_a_list(tmp_path):
    for name in ("1.png", "2.png"):
        make(tmp_path / name)
    (tmp_path / "pairs.csv").write_text("a,b,split\n1.png,2.png,train\n")
    report = inspect(tmp_path / "pairs.csv")
    assert report.exit_code == 0 and "train A" in as_text(report)
    assert json.loads(as_json(report))["layouts"] == ["a CSV list of pairs"]


@pytest.mark.promise("R33")
def test_check_of_nothing(tmp_path, capsys):
    assert script("check", tmp_path / "missing") == 4
    assert script("check", tmp_path) == 4
    assert "no pictures in it" in capsys.readouterr().err


@pytest.mark.promise("R52", "R27")
def test_names_do_not_steer_the_terminal(tmp_path, not_utf8, capsys):
    for number, name in enumerate(("\x1b[2J\n.png", f"{not_utf8}.png", "<script>.png")):
        make(tmp_path / "set" / "trainA" / name, number)
        (tmp_path / "set" / "trainB").mkdir(exist_ok=True)
        (tmp_path / "set" / "trainB" / name).write_bytes(b"damaged")
    assert script("check", tmp_path / "set") == 4
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and r"trainB/\x1b[2J\n.png: " in said.out
    assert script("check", tmp_path / "set", "--json") == 4
    text = capsys.readouterr().out
    assert text.isascii() and f"trainB/{not_utf8}.png" in [bad["file"] for bad in json.loads(text)["damaged"]]
    assert script("combine", tmp_path / "set/trainA", tmp_path / "set/trainB", "-o", tmp_path / "out") == 3
    assert "\x1b" not in capsys.readouterr().err


def test_combine_and_split_there_and_back(tmp_path):
    kinds = {
        "train/s/1.png": {},
        "train/grey.png": {"channels": 1},
        "val/deep.png": {"dtype": np.uint16},
        "val/alpha.png": {"alpha": True},
        "deep.tif": {"dtype": np.uint16, "channels": 1},
        "five.tiff": {"channels": 5},
    }
    for seed, (name, options) in enumerate(kinds.items()):
        make(tmp_path / "A" / name, seed, **options)
        make(tmp_path / "B" / name, seed + 50, **options)
    assert script("combine", tmp_path / "A", tmp_path / "B", "-o", tmp_path / "AB") == 0
    names = sorted(name.replace(".tiff", ".tif") for name in kinds)
    assert listed(tmp_path / "AB") == names
    assert images.read(tmp_path / "AB/train/s/1.png").pixels.shape == (8, 24, 3)
    assert script("split", tmp_path / "AB", "-o", tmp_path / "back") == 0
    assert listed(tmp_path / "back") == sorted(f"{side}/{name}" for side in "AB" for name in names)
    for name in kinds:
        for side in "AB":
            before = images.read(tmp_path / side / name)
            after = images.read(tmp_path / "back" / side / name.replace(".tiff", ".tif"))
            assert np.array_equal(before.pixels, after.pixels) and before.pixels.dtype == after.pixels.dtype
            assert (before.alpha is None) == (after.alpha is None)
            assert before.alpha is None or np.array_equal(before.alpha, after.alpha)


def test_floating_point_is_kept_or_refused(tmp_path):
    ramp = (np.arange(8 * 12 * 3, dtype=np.float32) / 300).reshape(8, 12, 3)
    (tmp_path / "A").mkdir()
    images.write(tmp_path / "A/1.tif", Picture(ramp))
    images.write(tmp_path / "A/2.tif", Picture(ramp))
    make(tmp_path / "B/1.tif")
    make(tmp_path / "B/2.png")
    outcome = combine(tmp_path / "A", tmp_path / "B", tmp_path / "AB")
    assert (outcome.done, [path.name for path, _ in outcome.failed]) == (1, ["2.tif"])
    assert "no floating point" in outcome.failed[0][1] and listed(tmp_path / "AB") == ["1.tif"]
    assert np.array_equal(images.read(tmp_path / "AB/1.tif").pixels[:, :12], ramp)


def test_combine_and_split_keep_the_description_of_colours(tmp_path):
    linear, other = (chunk(b"gAMA", gamma.to_bytes(4, "big")) for gamma in (100_000, 50_000))
    for name, sides in {"alike": (linear, linear), "unlike": (linear, other)}.items():
        for side, colour in zip("ab", sides, strict=True):
            (tmp_path / side).mkdir(exist_ok=True)
            images.write(tmp_path / side / f"{name}.png", Picture(np.zeros((2, 2, 3), np.uint8), colour=colour))
    assert combine(tmp_path / "a", tmp_path / "b", tmp_path / "joined").done == 2
    assert images.read(tmp_path / "joined" / "alike.png").colour == linear
    assert images.read(tmp_path / "joined" / "unlike.png").colour is None
    assert separate(tmp_path / "joined", tmp_path / "out").done == 2
    assert {images.read(tmp_path / "out" / side / "alike.png").colour for side in "AB"} == {linear}


def test_combine_of_unlike_pictures(tmp_path):
    a = make(tmp_path / "A/1.png", channels=1)
    make(tmp_path / "B/1.png", dtype=np.uint16, alpha=True)
    make(tmp_path / "A/2.jpg")
    make(tmp_path / "B/2.png")
    combine(tmp_path / "A", tmp_path / "B", tmp_path / "out")
    whole = images.read(tmp_path / "out/1.png")
    assert whole.pixels.dtype == np.uint16 and whole.pixels.shape == (8, 24, 3)
    assert np.array_equal(whole.pixels[:, :12, :1], images.read(a).pixels.astype(np.uint16) * 257)
    assert (whole.alpha[:, :12] == 65_535).all() and (whole.alpha[:, 12:] < 65_535).any()
    assert np.array_equal(images.read(tmp_path / "out/2.png").pixels[:, :12], images.read(tmp_path / "A/2.jpg").pixels)


def test_combine_names_what_does_not_fit_and_goes_on(tmp_path, capsys):
    for number, name in enumerate(("1.png", "2.png", "3.png", "4.png")):
        make(tmp_path / "A" / name, number)
        make(tmp_path / "B" / name, number)
    make(tmp_path / "B/2.png", height=9)
    (tmp_path / "B/3.png").write_bytes(b"damaged")
    (tmp_path / "A/4.png").rename(tmp_path / "A/5.png")
    assert script("combine", tmp_path / "A", tmp_path / "B", "--out", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert listed(tmp_path / "out") == ["1.png"]
    assert "12x8, and its partner" in said and "12x9; A and B side by side have equal sizes" in said
    assert (
        f"partner {tmp_path}/B/3.png: " in said and "no partner in" in said and "1 written, 0 skipped, 4 failed" in said
    )


def test_split_names_odd_widths(tmp_path):
    make(tmp_path / "in/1.png", width=13)
    make(tmp_path / "in/2.jpg")
    outcome = separate(tmp_path / "in", tmp_path / "out")
    assert outcome.failed == [(tmp_path / "in/1.png", "odd width 13; A and B side by side have equal widths")]
    assert listed(tmp_path / "out") == ["A/2.png", "B/2.png"]


@pytest.mark.promise("R24")
def test_outputs_of_one_name(tmp_path):
    make(tmp_path / "in/1.png")
    make(tmp_path / "in/1.jpg")
    with pytest.raises(UsageError, match="would have the name of another one"):
        separate(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="have the same name without suffix"):
        combine(tmp_path / "in", tmp_path / "in", tmp_path / "out")


@pytest.mark.promise("R22", "R25")
@pytest.mark.parametrize("verb", ["combine", "split", "divide"])
def test_no_surprise_on_disk(tmp_path, verb):
    for number in range(10):
        make(tmp_path / f"in/{number}.png", number)
        make(tmp_path / f"B/{number}.png", number)
    places = [tmp_path / "in", tmp_path / "B"][: 2 if verb == "combine" else 1]
    assert script(verb, *places) == 2
    assert script(verb, *places, "-o", tmp_path / "in") == 2
    assert script(verb, *places, "-o", tmp_path / "in" / "deeper") == 2
    assert script(verb, *places, "-o", tmp_path / "out") == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")}
    assert script(verb, *places, "-o", tmp_path / "out") == 2
    lost = tmp_path / "out" / min(before)
    lost.unlink()
    kept = tmp_path / "out" / max(before)
    kept.write_bytes(b"other")
    assert script(verb, *places, "-o", tmp_path / "out", "--skip-existing") == 0
    assert lost.exists() and kept.read_bytes() == b"other"
    assert script(verb, *places, "-o", tmp_path / "out", "--skip-existing", "--overwrite") == 2
    assert script(verb, *places, "-o", tmp_path / "out", "--overwrite") == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")} == before


@pytest.mark.promise("R25")
def test_an_input_is_never_replaced(tmp_path):
    for number in range(10):
        make(tmp_path / f"train/{number}.png", number)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(UsageError, match="outputs are inputs"):
        split_dataset(tmp_path / "train", tmp_path, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


@pytest.fixture
def plain(tmp_path):
    for number in range(40):
        make(tmp_path / f"in/{number % 3}/{number}.png", number)
    return tmp_path / "in"


def test_divide(plain, tmp_path):
    assert script("divide", plain, "-o", tmp_path / "out", "--val", "0.2", "--test", "0.1") == 0
    counts = {split: len(listed(tmp_path / "out" / split)) for split in ("train", "val", "test")}
    assert counts == {"train": 28, "val": 8, "test": 4}
    names = [name.split("/", 1)[1] for name in listed(tmp_path / "out")]
    assert sorted(names) == listed(plain)
    assert all((tmp_path / "out" / name).read_bytes() == (plain / name.split("/", 1)[1]).read_bytes()
               for name in listed(tmp_path / "out"))  # fmt: skip


def test_divide_depends_on_names_and_seed_alone(plain, tmp_path):
    split_dataset(plain, tmp_path / "one")
    split_dataset(plain, tmp_path / "two", link=True)
    split_dataset(plain, tmp_path / "three", seed=1)
    assert listed(tmp_path / "one") == listed(tmp_path / "two") != listed(tmp_path / "three")
    links = (tmp_path / "two").rglob("*.png")
    assert all(path.is_symlink() and path.resolve().is_relative_to(plain) for path in links)
    assert inspect(tmp_path / "two").groups[0]["name"] == "train"


def test_divide_for_one_domain(plain, tmp_path):
    assert script("divide", plain, "-o", tmp_path / "out", "--domain", "B", "--val", 0) == 0
    assert {name.split("/")[0] for name in listed(tmp_path / "out")} == {"trainB", "testB"}


def test_divide_keeps_copies_and_pairs_together(tmp_path):
    for number in range(30):
        for side in "AB":
            make(tmp_path / f"in/{side}/{number}.{'png' if side == 'A' else 'jpg'}", number % 10 + 100 * (side == "B"))
    split_dataset(tmp_path / "in", tmp_path / "out", val=0.3, test=0.3)
    report = inspect(tmp_path / "out", full=True)
    assert report.exit_code == 0 and len(report.groups) == 6 and not report.without_partner
    assert report.duplicates and all(len(copies["splits"]) == 1 for copies in report.duplicates)


def test_divide_refuses(plain, tmp_path):
    with pytest.raises(UsageError, match="leave nothing to train on"):
        split_dataset(plain, tmp_path / "out", val=0.5, test=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        split_dataset(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("R30")
def test_a_picture_that_vanishes(plain, tmp_path, monkeypatch):
    from i2i.tools.datasets import shape as dividing

    honest = dividing._copy

    def copy(source, *others):
        if source.name == "7.png":
            source.unlink()
        honest(source, *others)

    monkeypatch.setattr(dividing, "_copy", copy)
    outcome = split_dataset(plain, tmp_path / "out")
    assert [(path.name, reason) for path, reason in outcome.failed] == [
        ("7.png", "cannot be opened: No such file or directory")
    ]
    assert outcome.done == 39


def test_download(tmp_path, monkeypatch, capsys):
    import hashlib
    import io
    import zipfile

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("trainA/1.png", "trainB/2.png"):
            file.writestr(f"grumpifycat/{name}", images.encode(picture(len(name)), "PNG"))
    asked = []

    def download(url, path, **options):
        asked.append(url)
        Path(path).write_bytes(archive.getvalue())
        return hashlib.sha256(archive.getvalue()).hexdigest()

    monkeypatch.setattr(fetching, "download", download)
    monkeypatch.chdir(tmp_path)
    assert script("download", "grumpifycat", "--keep-archive") == 0
    said = capsys.readouterr()
    assert asked[0] in said.err and "licence   none stated" in said.err and "about 19 MiB" in said.err
    assert hashlib.sha256(archive.getvalue()).hexdigest() in said.err
    assert "trainA         1 pictures" in said.out
    assert listed(tmp_path / "datasets") == [
        "grumpifycat.zip",
        "grumpifycat/SOURCE.json",
        "grumpifycat/trainA/1.png",
        "grumpifycat/trainB/2.png",
    ]


@pytest.mark.promise("R50")
def test_nothing_is_downloaded_unasked(monkeypatch, capsys, unpaired):
    monkeypatch.setattr(fetching, "download", lambda *_, **__: pytest.fail("a download"))
    assert script("list") == 0
    assert "pix2pix/facades" in capsys.readouterr().out
    assert script("check", unpaired) == 0
    assert script("download", "cyclegan/cityscapes") == 2
    assert script("download", "maps") == 2


USAGE = [
    [],
    ["chek", "x"],
    ["check"],
    ["check", "x", "y"],
    ["--check", "x", "list"],
    ["list", "--val", "0.2"],
    ["combine", "x", "-o", "y"],
    ["instances", "x", "-o", "y"],
    ["divide", "x", "-o", "y", "--val", "1.5"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage(words, capsys):
    assert script(*words) == 2
    assert capsys.readouterr().err
