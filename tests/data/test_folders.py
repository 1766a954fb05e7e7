"""Finding pictures: what belongs to a data set, and what is said when it is laid out differently."""

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from check_files import check

from i2i import images
from i2i.data import walking
from i2i.data.folders import LeftOut, PairRecord, find_images, paired, single_domain, unpaired
from i2i.data.walking import walk
from i2i.errors import InputError
from i2i.files import make_folders
from i2i.tools.datasets.inspect import inspect


def make(path, width=8, height=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, images.Picture(np.zeros((height, width, 3), np.uint8)))
    return path


def relative(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_find_images(tmp_path):
    root = tmp_path / "root"
    for name in ("b.PNG", "a.jpg", "sub/c.tiff", "sub/deep/d.webp", "quote'\n .bmp", ".hidden.png", ".dir/e.png"):
        make(root / name)
    (root / "notes.txt").write_text("")
    outside = make(tmp_path / "outside" / "f.png")
    (root / "link.png").symlink_to(outside)
    (root / "broken.png").symlink_to("nowhere")
    (root / "linked_folder").symlink_to(tmp_path / "outside")
    (root / "sub" / "loop").symlink_to(root)
    os.mkfifo(root / "fifo.png")
    found = relative(find_images(root), root)
    wanted = ["a.jpg", "b.PNG", "link.png", "quote'\n .bmp", "sub/c.tiff", "sub/deep/d.webp"]
    assert found == sorted(wanted)


def test_find_names_that_are_not_utf8(tmp_path, not_utf8):
    make(tmp_path / f"{not_utf8}.png")
    assert relative(find_images(tmp_path), tmp_path) == [f"{not_utf8}.png"]


def test_unpaired(tmp_path):
    for name in ("trainA/2.png", "trainA/1.png", "trainB/x/9.jpg", "testA/5.png"):
        make(tmp_path / name)
    a, b = unpaired(tmp_path, "train")
    assert relative(a, tmp_path) == ["trainA/1.png", "trainA/2.png"]
    assert relative(b, tmp_path) == ["trainB/x/9.jpg"]
    assert list(map(list, unpaired(tmp_path, "val"))) == [[], []]
    assert len(unpaired(tmp_path, "test")[0]) == 1


LAYOUTS = {
    "side by side": (["train/1.png", "train/2.png"], [("train/1.png", None), ("train/2.png", None)]),
    "A/train": (["A/train/1.png", "B/train/1.jpg"], [("A/train/1.png", "B/train/1.jpg")]),
    "train/A": (["train/A/1.png", "train/B/1.jpg"], [("train/A/1.png", "train/B/1.jpg")]),
    "trainA": (["trainA/s/1.png", "trainB/s/1.png"], [("trainA/s/1.png", "trainB/s/1.png")]),
    "A": (["A/1.png", "B/1.png"], [("A/1.png", "B/1.png")]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_paired_layouts(tmp_path, name):
    files, expected = LAYOUTS[name]
    for file in files:
        make(tmp_path / file)
    records = [PairRecord(tmp_path / a, tmp_path / b if b else None) for a, b in expected]  # type: ignore[attr-defined]
    assert paired(tmp_path, "train") == records
    assert paired(tmp_path, "val") == []


def test_csv(tmp_path):
    for name in ("x/1.png", "y/1.png", "x/2.png", "y/2.png"):
        make(tmp_path / name)
    file = tmp_path / "pairs.csv"
    file.write_text("\ufeffa , b,split\nx/1.png,y/1.png,train\nx/2.png , y/2.png , val\n")
    assert paired(file, "train") == [PairRecord(tmp_path / "x/1.png", tmp_path / "y/1.png")]
    assert paired(file, "val") == [PairRecord(tmp_path / "x/2.png", tmp_path / "y/2.png")]
    file.write_text("b,a\ny/1.png,x/1.png\n")
    assert paired(file, "train") == [PairRecord(tmp_path / "x/1.png", tmp_path / "y/1.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", r"line 1: no column 'b'"),
        ("", r"line 1: no column 'a'"),
        ("a,b\n1.png,missing.png\n", r"line 2: .*missing.png"),
        ("a,b\n1.png,1.png\n1.png\n", r"line 3: nothing in column 'b'"),
        ("a,b,split\n1.png,1.png,validation\n", r"line 2: split 'validation'"),
        ("a,b,split\n1.png,1.png,val\n", r"no rows of the train split"),
        ("a,b\n\udcff,1.png\n", r"cannot be read as a CSV"),
    ],
)
def test_wrong_csv(tmp_path, text, message):
    make(tmp_path / "1.png")
    file = tmp_path / "pairs.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        paired(file, "train")


@pytest.mark.promise("R12")
@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ([], "unpaired", "found nothing"),
        (["train/1.png"], "unpaired", "i2i train pix2pix"),
        (["A/1.png", "B/1.png"], "unpaired", "i2i train pix2pix"),
        (["monet/trainA/1.png", "monet/trainB/1.png"], "unpaired", "Did you mean data=.*monet"),
        (["traina/1.png", "trainB/1.png"], "unpaired", "Did you mean 'traina'"),
        (["trainA/1.png"], "unpaired", r"found trainA/ without trainB/\.$"),
        (["1.png", "2.png"], "unpaired", "2 pictures directly in it; `i2i prepare-dataset divide .* -o NEW`"),
        (
            ["drawings/1.png", "photos/1.png"],
            "unpaired",
            "drawings/ and photos/. Rename .* else to trainA/ and trainB/",
        ),
        (
            ["map/1.png", "satellite/1.png"],
            "paired",
            "map/ and satellite/. Rename them to A/ and B/ if they hold pairs",
        ),
        (["1.png"], "paired", "looked for train/"),
        (["trainA/1.png", "trainB/notes.txt"], "unpaired", "trainB: no pictures"),
        (["trainA/1.png", "trainB/2.png"], "paired", r"no picture in(.|\n)*Name the two pictures of a pair alike"),
        (["A/1.png", "B/1.png", "B/1.jpg"], "paired", "same name"),
    ],
)
def test_other_layouts_are_explained(tmp_path, files, kind, message):
    for name in files:
        make(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).parent.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message) as caught:
        (unpaired if kind == "unpaired" else paired)(tmp_path, "train")
    assert caught.value.exit_code == 4 and str(tmp_path) in str(caught.value)


def test_missing_folder_names_a_near_one(tmp_path):
    (tmp_path / "facades").mkdir()
    with pytest.raises(InputError, match="Did you mean 'facades'"):
        paired(tmp_path / "facade", "train")
    with pytest.raises(InputError, match=r"facade: no such folder\. Did you mean 'facades'"):
        find_images(tmp_path / "facade")


@pytest.mark.promise("R13")
def test_unequal_names(tmp_path):
    for i in range(12):
        make(tmp_path / "A" / f"{i}.png")
    make(tmp_path / "B/0.png")
    make(tmp_path / "B/other.png")
    with pytest.raises(InputError, match="12 pictures have no partner") as caught:
        paired(tmp_path, "train")
    assert str(caught.value).count("has no partner in") == 10 and "and 2 more" in str(caught.value)
    left_out = LeftOut(tmp_path)
    assert [record.a.name for record in paired(tmp_path, "train", "intersect", left_out)] == ["0.png"]
    assert [line.partition(", such as ")[0] for line in left_out.lines] == ["left out: 12 pictures without a partner"]


@pytest.mark.promise("R13")
def test_check_of_pairs(tmp_path):
    odd = [PairRecord(make(tmp_path / f"{i}.png", width=7)) for i in range(3)]
    with pytest.raises(InputError, match=r"3 pictures have an odd width(.|\n)*0.png: 7x6"):
        check(odd)
    unequal = PairRecord(make(tmp_path / "a.png"), make(tmp_path / "b.png", width=9))
    with pytest.raises(InputError, match=r"1 pair differs in size(.|\n)*Scale or crop both"):
        check([unequal])


def test_check_of_sizes(tmp_path):
    def complaint(height, width):
        return f"{width}x{height}: flat" if height < 7 else ""

    with pytest.raises(InputError, match=r"1 picture cannot be used:\n  .*a\.png: 8x6: flat"):
        check([make(tmp_path / "a.png")], complaint=complaint)
    with pytest.raises(InputError, match=r"ab\.png: 4x6: flat"):
        check([PairRecord(make(tmp_path / "ab.png"))], complaint=complaint)
    check([make(tmp_path / "high.png", height=7)], complaint=complaint)


def test_check_finds_damage(tmp_path):
    files = [make(tmp_path / f"{i}.png", 40, 40) for i in range(40)]
    files[3].write_bytes(b"not a picture")
    files[5].write_bytes(files[5].read_bytes()[:-30])
    assert check(files, "quick") == [files[3]]
    assert check(files, "full") == [files[3], files[5]]
    assert check(files, "off") == []
    files[7].write_bytes(b"")
    with pytest.raises(InputError, match="3 of 40 pictures cannot be read, more than the 5% that may") as caught:
        check(files, "full")
    assert f"{files[7]}: empty file" in str(caught.value)


def test_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="cannot be listed"):
        find_images(tmp_path)


def test_skipped_files_are_reported_by_folder_and_reason(tmp_path):
    data = tmp_path / "data"
    for name in ("trainA/1.png", "trainB/1.png", "elsewhere/2.png"):
        make(data / name)
    for name in ("1.JP2", "2.jp2", "sub/3.jxl", "sub/4.bin", "5", ".hidden.jp2", "Thumbs.db"):
        (data / "trainA" / name).parent.mkdir(exist_ok=True)
        (data / "trainA" / name).write_bytes(b"x")
    (data / "trainA" / "more").symlink_to(data / "elsewhere")
    (data / "trainA" / "gone.png").symlink_to("nowhere")
    (data / "trainA" / "round.png").symlink_to("round.png")
    (data / "trainA" / "disk").symlink_to("/not/mounted")
    os.mkfifo(data / "trainB" / "fifo.png")
    left_out = LeftOut(data)
    assert [len(side) for side in unpaired(data, "train", left_out)] == [1, 1]
    expected = [
        "2 files of trainA have no suffix of a picture: without suffix, .bin",
        "1 link of trainA leads to a folder, and is not followed: more",
        "3 links of trainA lead nowhere: disk, gone.png, round.png",
        "3 files of trainA are not read here: .jp2, .jxl",
        "1 file of trainB is not a regular one: fifo.png",
    ]
    assert sorted(left_out.lines) == sorted(expected)
    assert set(expected) <= set(inspect(data).remarks)
    (data / "trainA" / "1.png").unlink()
    with pytest.raises(InputError, match="trainA: no pictures in this folder") as raised:
        unpaired(data, "train")
    assert "  3 files of trainA are not read here: .jp2, .jxl" in raised.value.args
    assert not any("\n" in line for line in raised.value.args)


def test_unread_partners_and_files_of_one_domain_are_reported(tmp_path):
    for name in ("A/1.png", "B/1.png", "A/2.png"):
        make(tmp_path / name)
    (tmp_path / "B" / "2.jp2").write_bytes(b"x")
    (tmp_path / "A" / "3.png").symlink_to("nowhere")
    make(tmp_path / "B/3.png")
    with pytest.raises(InputError) as caught:
        paired(tmp_path, "train")
    assert f"{tmp_path}/A/2.png: its partner {tmp_path}/B/2.jp2 is not read here" in str(caught.value)
    assert f"{tmp_path}/B/3.png: its partner {tmp_path}/A/3.png is a link that leads nowhere" in str(caught.value)
    left_out = LeftOut(tmp_path / "B")
    assert len(single_domain(tmp_path / "B", "train", left_out)) == 2
    assert left_out.lines == [f"1 file of {tmp_path}/B is not read here: .jp2"]


def test_the_layout_of_train_holds_for_the_other_splits(tmp_path):
    for name in ("trainA/1.png", "trainB/1.png", "test/1.png", "train/1.png", "val/A/1.png", "val/B/1.png"):
        make(tmp_path / name)
    left_out = LeftOut(tmp_path)
    pair = [PairRecord(tmp_path / "trainA/1.png", tmp_path / "trainB/1.png")]
    assert paired(tmp_path, "train", left_out=left_out) == pair
    assert paired(tmp_path, "test", left_out=left_out) == paired(tmp_path, "val", left_out=left_out) == []
    as_trained = "is left out: pairs are taken as in trainA/ with trainB/"
    assert left_out.lines[:3] == [f"{name} {as_trained}" for name in ("train/", "test/", "val/A/ with val/B/")]


def test_the_order_of_layouts_is_that_of_the_documentation(tmp_path):
    for name in ("A/1.png", "B/1.png", "train/2.png", "trainA/3.png", "trainB/3.png", "A/train/4.png", "B/train/4.png"):
        make(tmp_path / name)
    assert [record.a.name for record in paired(tmp_path, "train")] == ["4.png"]
    (tmp_path / "B/train").rename(tmp_path / "B/other")
    assert [record.a.name for record in paired(tmp_path, "train")] == ["3.png"]
    (tmp_path / "trainB").rename(tmp_path / "other")
    assert [record.a.name for record in paired(tmp_path, "train")] == ["2.png"]


def test_held_out_pictures_are_not_trained_on(tmp_path):
    for name in ("A/1.png", "B/1.png", "A/val/2.png", "B/val/2.png"):
        make(tmp_path / name)
    with pytest.raises(InputError, match=r"has A/val/, but no A/train/ to train on"):
        paired(tmp_path, "train")


def test_a_list_written_on_windows(tmp_path):
    make(tmp_path / "x/1.png")
    make(tmp_path / "y/1.png")
    (tmp_path / "pairs.csv").write_text("a,b\r\nx\\1.png,.\\y\\1.png\r\n")
    assert paired(tmp_path / "pairs.csv", "train") == [PairRecord(tmp_path / "x/1.png", tmp_path / "./y/1.png")]


def test_a_folder_of_any_depth(tmp_path):
    """Deeper than Python calls itself."""
    parts = ["d"] * 1100
    make_folders(tmp_path / "/".join(parts))
    made = make(tmp_path / "a.png")
    made.rename(tmp_path.joinpath(*parts, "a.png"))
    found = [len(path.relative_to(tmp_path).parts) for path in find_images(tmp_path)]
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest could not
    assert found == [1101]
    refused = []
    assert walk(tmp_path / "missing", refused.append) == [] and refused[0].filename == str(tmp_path / "missing")


@pytest.mark.parametrize("search", [unpaired, paired, single_domain])
@pytest.mark.parametrize("wrong", ["x" * 300, "round", "a\0b"])
def test_operating_system_errors_name_the_folder(tmp_path, search, wrong):
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(InputError, match=r"cannot be (looked at|listed): |no such folder") as caught:
        search(tmp_path / wrong, "train")
    assert str(tmp_path) in str(caught.value) and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("search", "closed"),
    [(unpaired, ""), (unpaired, "trainA"), (paired, ""), (paired, "trainA"), (single_domain, ""), (inspect, "")],
)
def test_folder_without_permission_is_an_error(tmp_path, monkeypatch, search, closed):
    """As the system answers whoever is not root: names may be listed, what lies behind them not be looked at."""
    make(tmp_path / "trainA/1.png")
    make(tmp_path / "trainB/1.png")
    real = os.stat

    def stat(path, *args, **more):
        if (tmp_path / closed) in Path(os.fspath(path)).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(InputError, match=r"Permission denied") as caught:
        search(tmp_path) if search is inspect else search(tmp_path, "train")
    assert f"no permission for the folder {tmp_path}" in str(caught.value)


def test_a_junction_of_windows_is_no_link_to_python_and_makes_no_loop(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    entries = walking._entries

    def as_on_windows(folder):
        folders, *files = entries(folder)
        return [(name, False) for name, _ in folders], *files

    monkeypatch.setattr(walking, "_entries", as_on_windows)
    monkeypatch.setattr(walking, "WINDOWS", True)
    assert walking.walk(tmp_path) == [str(tmp_path / "a" / "x.png")]
