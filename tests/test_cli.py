"""The command line as a user meets it: parsing, precedence, mistakes, and the code that a script ends with."""

import json
import math
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml
from command_line import OPTIONS, exit_code, parse, train_code
from toy_folders import write_folder

import i2i
from i2i import commands
from i2i.algorithms import ALGORITHMS
from i2i.commands import COMMANDS
from i2i.commands.line import TEXTS, WRITTEN
from i2i.commands.options import options_of
from i2i.config import from_mapping, read_options, to_yaml
from i2i.errors import I2IError, UsageError
from i2i.images import Picture, write
from i2i.training.launch import train
from i2i.training.options import RunOptions
from i2i.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
TINY = {
    "pix2pix": "--generator unet_32 --discriminator patchgan_16 --ngf 4 --ndf 4 --crop-size 32 --load-size 32",
    "cyclegan": "--generator resnet_1blocks --discriminator patchgan_16 --ngf 4 --ndf 4 --crop-size 16 --load-size 16",
}


# Ranges (R14)


def limits(hint: Any) -> tuple[type, dict[str, float]] | None:
    """The number type and the bounds of an annotation, also inside a union."""
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        names = ("gt", "ge", "lt", "le")
        bounds = {n: getattr(m, n) for m in marks for n in names if getattr(m, n, None) is not None}
        return (kind, bounds) if kind in (int, float) else None
    if get_origin(hint) in (types.UnionType,) or hint in (int, float):
        return next(filter(None, map(limits, get_args(hint))), (hint, {}) if hint in (int, float) else None)
    return None


def outside(kind: type, bounds: dict[str, float]) -> list[str]:
    """Values just outside the bounds, as a user would type them."""
    beyond: list[float] = []
    for name, bound in bounds.items():
        down = name in ("gt", "ge")
        if kind is int:
            beyond.append(int(bound) - 1 if down else int(bound) + 1)
        else:
            beyond.append(bound if name in ("gt", "lt") else math.nextafter(bound, -math.inf if down else math.inf))
    return [repr(value) for value in beyond] + (["nan", "inf", "-inf"] if kind is float else [])


NUMBERS = list(
    {
        (option, str(found)): (name, option, *found)  # once, however many algorithms share it
        for name, cls in OPTIONS.items()
        for option, hint in get_type_hints(cls, include_extras=True).items()
        if (found := limits(hint))
    }.values()
)


def test_there_are_numbers_to_try_and_each_has_a_range() -> None:
    assert len(NUMBERS) > 50
    assert {option for _, option, _, bounds in NUMBERS if not bounds} == set()


@pytest.mark.promise("R14")
@pytest.mark.parametrize(("name", "option", "kind", "bounds"), NUMBERS, ids=[f"{n}-{o}" for n, o, *_ in NUMBERS])
def test_a_number_out_of_range(
    name: str, option: str, kind: type, bounds: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    for value in outside(kind, bounds):
        with pytest.raises(UsageError) as refused:
            from_mapping(OPTIONS[name], {option: value, "data": "toy", "run": "run"})
        message = str(refused.value)
        assert message.startswith(option), message
        assert all(
            f"{signs[b]} {limit if isinstance(limit, int) else format(limit, 'g')}" in message
            for b, limit in bounds.items()
        ), message
    assert not list(tmp_path.iterdir())


SHARED = [
    ("--batch-size 0", "batch_size = 0: expected a number in range or 'auto' (allowed: ≥ 1)"),
    ("--norm layer", "norm"),
    ("--discriminator patchgan_71", "patchgan_71: the patch must be 16, 34, 70"),
    ("--batch-size 3 --micro-batches 2", "micro_batches = 2: must divide batch_size = 3"),
    ("--random-zoom 0.5", "random_zoom = 0.5: of load_size = "),
    ("--n-epochs 0 --n-epochs-decay 0", "nothing to train"),
    ("--device cuda:99", "device = 'cuda:99'"),
    ("--device gpu", "device = 'gpu': expected auto, cpu, cuda"),
    ("--data", "data"),
]
"""Options that all algorithms share, and what is said of them."""


def made(name: str, words: str | list[str]) -> int:
    """The exit code of a training that its options do not end."""
    return train_code(name, words, lambda options: train(ALGORITHMS[name], options))


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], str]:
    """Returns a function that says what a training says that ends before it has made anything."""
    monkeypatch.setattr("i2i.training.launch.Trainer", None)  # it must not come so far

    def said(name: str, words: str) -> str:
        code, said = made(name, f"--run {tmp_path}/run {words}"), capsys.readouterr().err
        assert code == 2 and "Traceback" not in said, said
        assert not list(tmp_path.iterdir()), "nothing may be created"
        return said

    return said


@pytest.mark.parametrize(("arguments", "message"), SHARED)
def test_options_that_cannot_be(arguments: str, message: str, refused: Callable[[str, str], str]) -> None:
    assert message in refused("cyclegan", f"--data toy {arguments}")


NETWORKS = [
    ("--crop-size 250 --generator resnet_1blocks", "crop_size = 250: this network takes multiples of 4"),
    ("--generator resent_9blocks", "dcgan_64. Did you mean 'resnet_9blocks'?"),
    ("--crop-size 300", "crop_size = 300: larger than load_size = 286; expected at most 286"),
    ("--generator resnet_65blocks", "blocks = 65"),
    ("--generator unet_100", "unet_100: the size must be a power of two from 32 to 4096"),
    ("--generator unet_256 --load-size 200 --crop-size 200", "crop_size = 200: this network takes multiples of"),
    ("--generator unet_512 --crop-size 256", "this network takes"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [(name, *case) for name in ALGORITHMS for case in (NETWORKS if name == "pix2pix" else NETWORKS[:3])],
)
def test_networks_that_cannot_be(name: str, arguments: str, message: str, refused: Callable[[str, str], str]) -> None:
    if ALGORITHMS[name].from_noise and "crop-size" in arguments:  # its generator makes pictures of one size
        message = "makes pictures of 64" if "generator" not in arguments else "translates pictures"
        arguments += " --load-size 512"
    if name == "segmentation":
        arguments += " --classes-a toy --direction b2a"
    if name == "distill":
        arguments = f"monet --lambda-gan 1 --lambda-features 0 {arguments}"
    assert message in refused(name, f"{arguments} --data toy")


# Bad input: found before any work, nothing created


def picture(path: Path, width: int = 64, height: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, Picture(np.zeros((height, width, 3), np.uint8)))


def odd_width(data: Path) -> None:
    picture(data / "train" / "a.png", width=65)


def unequal_pairs(data: Path) -> None:
    for name in ("train/A/one", "train/A/two", "train/B/two", "train/B/three"):
        picture(data / f"{name}.png")


def unequal_sizes(data: Path) -> None:
    picture(data / "train" / "A" / "one.png", width=64)
    picture(data / "train" / "B" / "one.png", width=32)


def damaged(data: Path) -> None:
    picture(data / "train" / "one.png")
    (data / "train" / "two.png").write_bytes(b"not a picture")


def empty_domain(data: Path) -> None:
    picture(data / "trainA" / "one.png")
    (data / "trainB").mkdir()


def one_domain(data: Path) -> None:
    picture(data / "trainA" / "one.png")


def damaged_domain(data: Path) -> None:
    empty_domain(data)
    (data / "trainB" / "two.png").write_bytes(b"not a picture")


def empty(data: Path) -> None:
    data.mkdir()


def other_layout(data: Path) -> None:
    picture(data / "training" / "one.png")


def nothing(data: Path) -> None:
    pass


BAD = [
    ("pix2pix", nothing, ["no such folder"]),
    ("cyclegan", nothing, ["no such folder"]),
    ("pix2pix", empty, ["train/"]),
    ("cyclegan", empty, ["trainA/ and trainB/"]),
    ("cyclegan", empty_domain, ["trainB: no pictures in this folder", ".png"]),
    ("cyclegan", one_domain, ["trainA/ and trainB/"]),
    ("cyclegan", damaged_domain, ["two.png"]),
    ("cyclegan", other_layout, ["looked for", "training"]),
    ("pix2pix", other_layout, ["looked for", "training"]),
    ("pix2pix", odd_width, ["a.png", "odd width"]),
    ("pix2pix", unequal_pairs, ["one.png has no partner", "three.png has no partner", "--pairs intersect"]),
    ("pix2pix", unequal_sizes, ["one.png", "64x32", "32x32"]),
    ("pix2pix", damaged, ["two.png"]),
]


@pytest.mark.promise("R12")
@pytest.mark.parametrize(("name", "make", "messages"), BAD, ids=[f"{n}-{m.__name__}" for n, m, _ in BAD])
def test_data_that_cannot_be_used(
    name: str, make: Callable[[Path], None], messages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    make(data)
    words = ["--data", str(data), "--run", str(folder), *TINY[name].split()]
    code = made(name, words)
    said = capsys.readouterr().err
    assert code == 4, said
    for message in messages:
        assert message in said
    assert not folder.exists()


def test_a_run_needs_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert made("cyclegan", f"--run {tmp_path}/run") == 2
    assert "data: missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_crops_larger_than_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "data", "unpaired", count=2, size=16)
    words = f"--data {tmp_path}/data --run {tmp_path}/run {TINY['cyclegan']} --preprocess crop --crop-size 20"
    assert made("cyclegan", words) == 4
    assert "below the crop of 20" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Parsing


def test_precedence(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("lr: 1e-3\nbatch-size: 4\n")
    made = parse("cyclegan", f"--config {tmp_path}/c.yaml --batch-size 8")
    assert (made.beta1, made.lr, made.batch_size) == (0.5, 1e-3, 8)
    assert parse("cyclegan", f"--batch-size 8 --config={tmp_path}/c.yaml").batch_size == 8


def test_underscores_and_hyphens() -> None:
    assert parse("cyclegan", "--batch_size 3").batch_size == parse("cyclegan", "--batch-size 3").batch_size == 3
    assert parse("cyclegan", "--lambda_cycle_A 3").lambda_cycle_A == 3
    assert parse("cyclegan", "--no-flip").flip is False
    assert parse("cyclegan", "--lr=1e-3").lr == 1e-3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--batch 3", "batch-size"),
        ("--lambda-cycle 3", "lambda-cycle-A"),
        ("--max-steps 1.5", "max-steps"),
        ("--config missing.yaml", "missing.yaml: cannot read this configuration"),
    ],
)
def test_mistakes_in_flags(arguments: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Abbreviations are mistakes too; near misses are suggested."""
    assert train_code("cyclegan", arguments) == 2
    said = capsys.readouterr()
    assert expected in (said.err + said.out).replace("_", "-")


@pytest.mark.parametrize("text", ["btach_size: 3", "lr: 0", "a: &b 1\nc: *b", "[1", "n_epochs: many"])
def test_mistakes_in_a_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert train_code("cyclegan", f"--config {tmp_path}/c.yaml") == 2
    assert f"{tmp_path}/c.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_print_config_is_complete_and_comes_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--data toy --run runs/x --lr 1e-3 --no-flip --max-steps 7 --init-from a.pth b.pth"
    assert train_code(name, f"{flags} --print-config") == 0
    printed = capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(printed)
    assert {"data", "networks", "losses", "optimisation"} <= set(yaml.safe_load(printed)), "by groups"
    written = read_options(tmp_path / "c.yaml")
    assert set(written) == {"algorithm", *(option.name for option in fields(OPTIONS[name]))}
    assert parse(name, f"--config {tmp_path}/c.yaml") == parse(name, flags)
    assert train_code(name, f"--print_config --config {tmp_path}/c.yaml") == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_comes_with_i2i(path: Path) -> None:
    name = {"fastcut": "cut", "sincut": "cut"}.get(kind := path.stem.partition("_")[0], kind)
    values = read_options(path)
    made = parse(name, f"--config {path}")
    assert values.keys() <= {"algorithm", *vars(made)}
    assert values["algorithm"] == name == made.algorithm
    assert made.data is not None and made.run is not None


def run_of(folder: Path, name: str, flags: str) -> Path:
    """A run folder with the configuration of those flags."""
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(parse(name, flags)))
    return folder


@pytest.mark.promise("R15")
def test_a_run_goes_on_as_it_was_but_for_what_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(tmp_path / "run", "pix2pix", "--data toy --run old --crop-size 128 --load-size 130 --no-flip")
    assert parse("pix2pix", f"--run {folder}") == parse(
        "pix2pix", f"--data toy --run {folder} --crop-size 128 --load-size 130 --no-flip"
    )
    assert "keeps the options that you do not give: data = toy, load_size = 130" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("lr: 3e-4\ncrop-size: 64\n")
    on_top = parse("pix2pix", f"--run {folder} --config {tmp_path}/c.yaml --crop-size 96 --max-steps 256")
    assert (on_top.lr, on_top.crop_size, on_top.max_steps, on_top.flip) == (3e-4, 96, 256, False)
    default = parse("pix2pix", f"--run {folder} --crop-size 256 --load-size 286 --flip")
    assert (default.crop_size, default.load_size, default.flip) == (256, 286, True), "a default that is given counts"
    assert train_code("pix2pix", f"--run {folder} --print-config") == 0
    assert "crop_size: 128\n" in capsys.readouterr().out


def test_a_new_run_has_the_defaults(tmp_path: Path) -> None:
    assert parse("pix2pix", f"--run {tmp_path}/new").crop_size == 256


@pytest.mark.parametrize("text", ["[", "lr: 0", "btach_size: 1"])
def test_a_run_whose_configuration_cannot_be_read(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert train_code("cyclegan", f"--run {tmp_path}") == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/config.yaml" in said and "remove it and give every option again" in said


@pytest.mark.parametrize("place", ["--config {}/config.yaml", "--run {}"])
def test_a_configuration_of_another_algorithm(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(tmp_path / "run", "pix2pix", "--data toy")
    assert train_code("cyclegan", place.format(folder)) == 2
    assert (
        "algorithm: this configuration is for 'pix2pix', not for 'cyclegan': use i2i train pix2pix"
        in capsys.readouterr().err
    )
    (folder / "config.yaml").write_text("data: toy\ncrop_size: 32\n")
    assert parse("cyclegan", place.format(folder)).crop_size == 32, "one that names none is held to its keys"


def test_two_configurations_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("lr: 1e-3\n")
    assert train_code("cyclegan", f"--config {tmp_path}/a.yaml --config={tmp_path}/b.yaml") == 2
    assert f"--config: given more than once ({tmp_path}/a.yaml, {tmp_path}/b.yaml)" in capsys.readouterr().err


def test_a_flag_given_twice_takes_the_last_value_and_warns(capsys: pytest.CaptureFixture[str]) -> None:
    made = parse("cyclegan", "--lr 1 --batch-size 2 --lr=3 --flip --no-flip")
    assert (made.lr, made.flip) == (3, False)
    said = capsys.readouterr().err
    assert "--lr is given more than once" in said and "--flip is given more than once" in said
    assert "--batch-size" not in said


# How a script ends


@pytest.mark.parametrize("code", [1, 3, 4, 5, 6, 7, 8, 75, 130])
def test_the_exit_code_is_the_error_s(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Any) -> None:
        error = I2IError("what was wrong\x1b[2J")
        error.exit_code = code
        raise error

    assert train_code("cyclegan", "--data toy", main) == code
    assert capsys.readouterr().err == "i2i: what was wrong\\x1b[2J\n"


def test_a_bug_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    assert train_code("cyclegan", "--data toy", main) == 1
    quiet = capsys.readouterr().err
    assert "unexpected error" in quiet and "Traceback" not in quiet
    assert train_code("cyclegan", "--data toy --verbose", main) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.promise("R27")
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_name_is_too_odd_to_be_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    with (tmp_path / "out").open("w", encoding=encoding) as file:
        for name in ("stdout", "__stdout__"):
            monkeypatch.setattr(sys, name, file)
        assert train_code("cyclegan", "--data toy", lambda _: print("\udcff\U0001f3a8", flush=True)) == 0
    shown = "\\U0001f3a8" if encoding == "ascii" else "\U0001f3a8"
    assert (tmp_path / "out").read_bytes() == f"\\udcff{shown}\n".encode()


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Any) -> None:
        raise KeyboardInterrupt

    assert train_code("cyclegan", "--data toy", main) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_main_s_code_is_the_process_s() -> None:
    assert train_code("cyclegan", "--data toy", lambda _: None) == 0
    assert train_code("cyclegan", "--data toy", lambda _: 3) == 3


# What is imported, and when

HEAVY = ("torch", "torchvision", "torchmetrics", "albumentations", "kornia", "cv2", "numpy", "PIL", "scipy", "networkx")
LOOK = (
    "import sys, runpy, atexit\natexit.register(lambda: print('imported', *sorted(set({heavy}) & set(sys.modules))))\n"
)


def imported(code: str) -> set[str]:
    """Which of the heavy libraries a Python that runs `code` has imported in the end."""
    program = LOOK.format(heavy=HEAVY) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported")[2].split())


@pytest.mark.parametrize("option", ["domain_a", "domain_b", "licence"])
@pytest.mark.parametrize("label", ["two\nlines", "x" * 1001])
def test_labels_that_a_model_file_cannot_hold_are_refused_at_the_start(option: str, label: str) -> None:
    with pytest.raises(UsageError, match=option):
        from_mapping(RunOptions, {option: label})


# Empty arguments, which an unset variable of the shell leaves behind


@pytest.mark.promise("R14")
@pytest.mark.parametrize(
    "words",
    [
        ["--data", ""],
        ["--data="],
        ["--data", "toy", "--run", ""],
        ["--data", "toy", "--run", "r", "--init-from", "a.pth", ""],
        ["--data", "toy", "--run", "r", "--classes-b", ""],
        ["--config", ""],
        ["--config="],
        [""],
    ],
)
def test_an_empty_argument_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_code("pix2pix", words) == 2
    assert "an empty argument" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", ["--batch-size 010", "--batch-size=1_0", "--lr 1_0.5", "--batch_size -01"])
def test_a_number_that_may_be_read_in_two_ways_is_refused_as_in_a_file(flags: str) -> None:
    with pytest.raises(UsageError, match=r"^(batch_size|lr) = .*may be read in two ways"):
        parse("pix2pix", f"--data toy {flags}")
    assert parse("pix2pix", "--data 010 --run 1_0 --classes-a 010 --lr 1e-3").data == Path("010")


READ = {
    "card", "check", "data", "folder", "inception", "init_from", "inputs", "install_style", "lpips", "mask",
    "paired_data", "pictures", "reference", "vgg", "web_runtime", "words",
}  # fmt: skip
"""The options of all scripts that are paths and name what is read."""


def test_every_path_is_read_or_written_on_purpose_and_every_text_may_be_emptied_or_not() -> None:
    trainings = [options_of("train", name) for name in ALGORITHMS]
    others = [options_of(name) for name in COMMANDS if name != "train"]
    options = [option for known in (*trainings, *others) for option in known]
    paths = {option.name for option in options if option.kind == "path"}
    texts = {option.name for option in options if option.kind == "str" and option.default == ""}
    assert paths == READ | (WRITTEN & paths)
    assert paths >= WRITTEN
    assert {name for name in texts if "domain" in name or name == "licence"} <= TEXTS


def test_a_text_may_be_emptied() -> None:
    assert train_code("pix2pix", ["--data", "toy", "--stop-when", "", "--licence="], lambda options: 0) == 0


def test_a_run_goes_on_from_another_folder_with_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "there"):
        for name in ("photos", "cache", "facades"):
            (tmp_path / folder / name).mkdir(parents=True)
        for name in ("p.txt", "a.pth"):
            (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    flags = (
        "--data photos --cache cache --classes-a p.txt --classes-b facades --init-from a.pth /b.pth --licence photos"
    )
    RunFolder(tmp_path).describe(parse("pix2pix", flags), "cpu")
    assert parse("pix2pix", "--run .. --lr 1").data == Path("photos"), "as it was typed"
    monkeypatch.chdir(tmp_path / "there")
    here = tmp_path / "here"
    found = parse("pix2pix", "--run ..")
    assert (found.data, found.cache, found.classes_a) == (here / "photos", here / "cache", str(here / "p.txt"))
    assert (found.classes_b, found.licence) == ("facades", "photos")
    assert found.init_from == (here / "a.pth", Path("/b.pth"))
    assert parse("pix2pix", "--run .. --data photos").data == Path("photos"), "given anew"
    assert RunFolder(Path("..")).changes(replace(found, run=Path("runs/pix2pix"))) == {}
    assert RunFolder(Path("..")).changes(replace(found, run=Path("runs/pix2pix"), data=Path("photos"))) == {
        "data": (str(here / "photos"), "photos")
    }


@pytest.mark.promise("R14")
@pytest.mark.parametrize("values", [{"data": ""}, {"init_from": ["a.pth", ""]}, {"run": "a\0b"}])
def test_an_empty_path_of_a_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(values))} = .*(empty path|NUL)"):
        from_mapping(OPTIONS["pix2pix"], values)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied", "in/a.png"), 4),
        (PermissionError(13, "Permission denied", "out/b/c.png"), 6),
        (OSError(36, "File name too long", "out"), 6),
        (OSError(40, "Too many levels of symbolic links", "data"), 4),
        (OSError(28, "No space left on device"), 6),
        (OSError(30, "Read-only file system", "in"), 6),
        (OSError(24, "Too many open files", "in/a.png"), 9),
        (BlockingIOError(11, "Resource temporarily unavailable"), 9),
        (OSError(28, "No space left on device", "/psm_1234"), 9),
        (OSError(28, "No space left on device", "/torch_12_34_0"), 9),
        (PermissionError(13, "Permission denied", "/dev/shm/photos/a.png"), 4),
        (FileNotFoundError(2, "No such file or directory", "/opt/torch_2.4/x.png"), 4),
        (FileNotFoundError(2, "No such file or directory", "/psm_1/x.png"), 4),
        (OSError(28, "No space left on device", "/data/psm_1/x.png"), 6),
        (FileNotFoundError(2, "No such file or directory", str(Path(i2i.__file__).with_name("styles") / "none")), 1),
        (BrokenPipeError(32, "Broken pipe"), 9),
        (ConnectionResetError(104, "Connection reset by peer"), 9),
        (RuntimeError("unable to mmap 128 bytes from file </torch_12_3>: Cannot allocate memory (12)"), 9),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)"), 9),
        (RuntimeError("shapes differ in /envs/torch_2/lib and /dev/shm/psm_1"), 1),
        (RuntimeError("unable to open file </opt/torch_2/x.pt> in read-only mode"), 1),
        (MemoryError(), 9),
        (RuntimeError("can't start new thread"), 9),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), 9),
        (ValueError("embedded null byte"), 2),
        (UnicodeEncodeError("utf-8", "r\udcff", 1, 2, "surrogates not allowed"), 2),
        (ValueError("a bug"), 1),
    ],
)
def test_errors_of_the_system_have_exit_codes(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main(options: Any) -> None:
        raise error

    assert train_code("pix2pix", ["--data", "toy", "--run", "out"], main) == code
    assert ("unexpected" in capsys.readouterr().err) == (code == 1)


@pytest.mark.promise("R52")
def test_a_message_has_the_lines_that_are_meant_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    def main(options: Any) -> None:
        raise UsageError("a\x1b[2J\nfinished", "  b\u202e\nc")

    assert train_code("pix2pix", ["--data", "toy"], main) == 2
    assert capsys.readouterr().err == "i2i: a\\x1b[2J\\nfinished\n  b\\u202e\\nc\n"


@pytest.mark.promise("R52")
def test_a_refused_argument_is_shown_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_code("pix2pix", ["--nosuch=a\x1b[2J\u202e\nfinished"]) == 2
    said = capsys.readouterr().err
    assert "a\\x1b[2J" in said and all(c.isprintable() or c == "\n" for c in said)


# One command


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("", 0, "usage: i2i COMMAND"),
        ("--help", 0, "prepare-dataset"),
        ("--version", 0, f"i2i {i2i.__version__}\n"),
        ("train --help", 0, "i2i train FILE.yaml"),
        ("train cyclegan --help", 0, "usage: i2i train cyclegan --data FOLDER"),
        ("train-cyclegan --help", 0, "usage: i2i train cyclegan --data FOLDER"),
        ("train_cyclegan --help-all", 0, "measuring:"),
        ("distill --help", 0, "usage: i2i train distill TEACHER"),
        ("plan cyclegan --help", 0, "usage: i2i plan ALGORITHM"),
        ("translate --help", 0, "usage: i2i translate --style STYLE"),
        ("trnaslate", 2, "unknown command 'trnaslate'. Did you mean 'translate'?"),
        ("train-cylcegan", 2, "Did you mean 'train-cyclegan'?"),
        ("cyclegan --data x", 2, "i2i train cyclegan --data FOLDER"),
        ("train", 2, "expected an algorithm first, as in: i2i train cyclegan"),
        ("train cycelgan", 2, "unknown algorithm 'cycelgan'. Did you mean 'cyclegan'?"),
        ("train cycelgan --help", 0, "i2i train FILE.yaml"),
        ("train nosuch.yaml", 2, "nosuch.yaml: cannot read this configuration"),
        ("translate --overwrite=False x -o out", 2, "--overwrite=False: --overwrite and --no-overwrite take no value"),
        ("report --name maps", 2, "unknown option --name"),
        ("train --run nosuch", 2, "--run nosuch: no run to go on with"),
        ("train --dataroot maps --model cycle_gan", 2, "i2i train cyclegan"),
        ("train cyclegan --btach 3", 2, "unknown option --btach. Did you mean --batch-size"),
        ("train cyclegan --batch-size", 2, "--batch-size: expected a value"),
        ("train cyclegan --batch-size --lr 1", 2, "--batch-size: expected a value"),
        ("train cyclegan --lr fast", 2, "lr = 'fast': expected a number"),
        ("train cyclegan --ngf 999", 2, "ngf = 999: expected a number in range (allowed: ≥ 1, ≤ 512)"),
        ("train cyclegan --direction BtoA", 2, "--direction b2a"),
        ("train cyclegan photos", 2, "unexpected 'photos'"),
        ("translate --style", 2, "--style: expected a value"),
        ("report runs/a runs/b", 2, "unexpected 'runs/b'"),
        ("prepare-dataset lisst", 2, "Did you mean 'list'?"),
    ],
)
def test_a_line_is_answered(
    words: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(*words.split()) == code
    heard = capsys.readouterr()
    assert said in (heard.err if code else heard.out)
    assert not list(tmp_path.iterdir())


ANSWERED = """
import i2i.config, i2i.errors
from i2i import cli
def answer(*words):
    sys.argv = ["i2i", *words]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
from i2i.commands import ALGORITHMS, COMMANDS
for command in (*([name] for name in COMMANDS), *(["train", name] for name in ALGORITHMS)):
    assert answer(*command, "--help") == answer(*command, "--help-all") == 0, command
for words in ("train gan --lr fast", "train cut --nosuch", "train pix2pix --batch-size", "translate --quality 0", "x"):
    assert answer(*words.split()) == 2, words
"""


def test_help_and_mistakes_of_typing_need_nothing_heavy() -> None:
    assert imported(ANSWERED) == set()


def test_a_configuration_or_a_run_says_by_which_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos.yaml").write_text("algorithm: cut\ndata: toy\nlr: 1e-3\n")
    assert exit_code("train", "photos.yaml", "--lr", "3", "--print-config") == 0
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed)
    assert (values["algorithm"], values["optimisation"]["lr"], values["run"]) == ("cut", 3.0, "runs/cut")
    Path("run").mkdir()
    Path("run/config.yaml").write_text(printed)
    assert exit_code("train", "--run", "run", "--print-config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["algorithm"] == "cut"
    for text, said in (("data: toy", "a line such as `algorithm: cyclegan`"), ("algorithm: x", "unknown 'x'")):
        Path("photos.yaml").write_text(text)
        assert exit_code("train", "photos.yaml") == 2
        assert said in capsys.readouterr().err


def test_a_mistyped_algorithm_is_unknown_beside_a_configuration_or_a_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("algorithm: distill\ndata: toy\n")  # which takes a teacher as its first word
    for words in ("--config config.yaml", "--run .", "--config config.yaml --print-config"):
        assert exit_code("train", "distil", *words.split()) == 2
        assert "unknown algorithm 'distil'. Did you mean 'distill'?" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_a_script_is_a_door(script: str) -> None:
    """Three lines, the same command; workers that import it again start nothing."""
    name = script.removesuffix(".py").replace("_", "-")
    trains = name.startswith("train-") or name == "distill"
    words = ["train", name.removeprefix("train-")] if trains else [name]
    assert (ROOT / "scripts" / script).read_text() == (
        f'"""`i2i {" ".join(words)}`, from a checkout."""\n\nfrom i2i.cli import main\n\n'
        f'if __name__ == "__main__":\n    main({", ".join(map(json.dumps, words))})\n'
    )


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "i2i", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"i2i {i2i.__version__}\n")


# Options that follow from others


@pytest.mark.parametrize(
    ("name", "arguments", "generator"),
    [
        ("pix2pix", "--crop-size 128", "unet_128"),
        ("pix2pix", "--crop-size 96", "unet_32"),
        ("pix2pix", "--crop-size 512 --load-size 512", "unet_256"),
        ("pix2pix", "--crop-size 200", "unet_256"),
        ("pix2pix", "--crop-size 128 --generator unet_64", "unet_64"),
        ("pix2pix", "", "unet_256"),
        ("colorization", "--crop-size 128", "unet_128"),
        ("cyclegan", "--crop-size 128", "resnet_9blocks"),
    ],
)
def test_a_u_net_follows_the_size_of_the_crop(name: str, arguments: str, generator: str) -> None:
    assert parse(name, arguments).generator == generator


def test_a_u_net_follows_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("crop_size: 64\n")
    assert parse("pix2pix", f"--config {tmp_path}/c.yaml").generator == "unet_64"
    assert parse("pix2pix", f"--config {tmp_path}/c.yaml --crop-size 128").generator == "unet_128"
    (tmp_path / "c.yaml").write_text("crop_size: 64\ngenerator: unet_32\n")
    assert parse("pix2pix", f"--config {tmp_path}/c.yaml").generator == "unet_32"


def test_a_run_has_a_default_folder_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("cyclegan", "--data toy").run == Path("runs/cyclegan")
    assert capsys.readouterr().err == ""
    Path("runs").mkdir()
    run_of(Path("runs/cyclegan"), "cyclegan", "--data toy --lr 1e-3")
    found = parse("cyclegan", "--data toy")
    assert (found.run, found.lr) == (Path("runs/cyclegan"), 1e-3)
    assert "runs/cyclegan exists and goes on; give --run FOLDER for a new run" in capsys.readouterr().err
    assert parse("cyclegan", "--data toy --run runs/other").lr == 2e-4


# Answers before torch

MISTAKES = {
    "train cyclegan": "data: missing",
    "train cyclegan --data toy --crop-size 300": "crop_size = 300: larger than load_size = 286",
    "train pix2pix --data toy --batch-size 3 --micro-batches 2": "micro_batches = 2: must divide batch_size = 3",
    "train cut --data toy --n-epochs 0 --n-epochs-decay 0": "nothing to train",
    "train cut --data toy --stop-when ssim=1": "stop_when = 'ssim=1': 'ssim=1' is no condition",
    "train cut --data toy --lr-policy plateau --validate-every 0": "lr_policy = 'plateau': follows the validation",
    "train cut --data toy --run wrong.yaml": "run = wrong.yaml: is a file; give --run the name of a folder",
    "train wrong.yaml": "wrong.yaml: lr = 0: expected a number in range",
    "train sizes.yaml": "crop_size = 300: larger than load_size = 286",
    "train --run resumed --crop-size 300": "crop_size = 300: larger than load_size = 286",
    "plan cyclegan": "data: missing; give --data a folder",
    "plan gan --data toy --load-size 32": "crop_size = 64: larger than load_size = 32",
    "train cyclegan --data toy --generator resent_9blocks": "generator = 'resent_9blocks': expected resnet_6blocks, ",
    "train cut --data toy --discriminator patchgan": "discriminator = 'patchgan': expected patchgan_16, ",
    "train gan --data toy --device gpu": "device = 'gpu': expected auto, cpu, cuda, cuda:N or mps. Did you mean 'cpu'?",
    "translate --style monet photos -o out --device gpu": "device = 'gpu': expected auto, cpu, cuda, cuda:N or mps",
    # from here on what reads pictures may be there
    "train cyclegan --data nosuch": "data = nosuch: no such folder",
    "train cyclegan --data photos": "photos: looked for trainA/ and trainB/ (unpaired), and found nothing",
    "plan pix2pix --data photos": "photos: looked for train/ (A and B side by side), ",
    "train gan --data halves": "halves: two domains; give one of them, such as --data halves/trainA",
    "evaluate nosuch photos": "style 'nosuch': no such style",
    "evaluate . --metrics ssmi": "metrics: unknown 'ssmi'. Did you mean 'ssim'?",
}
ANSWERS = """
import contextlib, io, json, sys
import i2i.cli
heavy, found = set({heavy}), dict()
for words in {mistakes}:
    sys.argv, said = ["i2i", *words.split()], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            i2i.cli.main()
    except SystemExit as ended:
        found[words] = [ended.code, said.getvalue(), sorted(heavy & set(sys.modules))]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """The exit code of each, what it said, and the heavy libraries that were imported so far, all in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "wrong.yaml").write_text("algorithm: cyclegan\nlr: 0\n")
    (folder / "sizes.yaml").write_text("algorithm: cut\ndata: toy\ncrop_size: 300\nclasses_a: 12\n")
    (folder / "photos").mkdir()
    (folder / "halves" / "trainA").mkdir(parents=True)
    (folder / "resumed").mkdir()
    (folder / "resumed" / "config.yaml").write_text("algorithm: cyclegan\ndata: toy\n")
    program = ANSWERS.format(heavy=(*HEAVY, "cv2"), mistakes=list(MISTAKES))
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True, timeout=120)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(("words", "said"), MISTAKES.items())
def test_a_mistake_that_needs_no_torch_is_answered_without(words: str, said: str, answers: Any) -> None:
    code, told, imported = answers[words]
    assert code in (2, 4) and said in told
    reads = words.startswith("evaluate") or any(name in words for name in ("nosuch", "data photos", "halves"))
    assert set(imported) <= ({"cv2", "numpy", "PIL"} if reads else set())


def test_the_layouts_are_those_of_the_algorithms() -> None:
    for name, algorithm in ALGORITHMS.items():
        layout = "one domain" if algorithm.single_domain else "paired" if algorithm.paired else "unpaired"
        assert commands.ALGORITHMS[name].layout == (None if name == "distill" else layout)


def test_the_help_of_a_configuration_or_of_a_run_is_that_of_its_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("algorithm: cut\n")
    for words in (("config.yaml",), ("--config", "config.yaml"), ("--run", ".")):
        assert exit_code("train", *words, "--help") == 0
        assert capsys.readouterr().out.startswith("usage: i2i train cut")
    Path("broken.yaml").write_text("algorithm: [")
    for words in (("nosuch.yaml",), ("broken.yaml",), ("--config", "broken.yaml")):
        assert exit_code("train", *words, "--help") == 0
        assert "ALGORITHM" in capsys.readouterr().out
