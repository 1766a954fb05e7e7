"""Configurations: the same ranges everywhere, nothing guessed, nothing hostile followed."""

import contextlib
import itertools
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Interval
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.commands import ALGORITHMS, COMMANDS
from i2i.commands.options import class_of, options_of
from i2i.config import checked, from_mapping, option_names, read_options, to_mapping, to_yaml
from i2i.errors import UsageError, nearest
from i2i.inference.options import CallOptions, FolderOptions


@dataclass(frozen=True, kw_only=True)
class Sample:
    rate: Annotated[float, Interval(gt=0, le=10)] = 1.0
    weight: Annotated[float, Ge(0)] = 0.5
    count: Annotated[int, Ge(1)] | None = None
    kind: Literal["batch", "instance"] = "batch"
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    flip: bool = False
    check: Literal["full", "off"] = "full"
    numbers: dict[str, float] = field(default_factory=dict)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes) -> Sample:
    path = written(folder, text)
    return from_mapping(Sample, read_options(path), str(path))


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Sample,
        rate=st.floats(0, 10, exclude_min=True),
        weight=st.floats(0, 1e300),
        count=st.none() | st.integers(1, 10**12),
        kind=st.sampled_from(["batch", "instance"]),
        folder=st.none() | st.text("aé ü/:#'\"{}[]-", min_size=1).map(Path),
        files=st.lists(st.text("ab*& ", min_size=1).map(Path), max_size=3).map(tuple),
        flip=st.booleans(),
        check=st.sampled_from(["full", "off"]),
    )
)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> None:
    path = written(tmp_path_factory.mktemp("yaml"), to_yaml(sample))
    assert from_mapping(Sample, read_options(path)) == sample


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", "'1e-4'"])
def test_numbers_as_people_write_them(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"rate: {text}").rate == 1e-4


def test_words_stay_words(tmp_path: Path) -> None:
    assert read(tmp_path, "check: off").check == "off"
    assert read(tmp_path, "folder: 2026-01-01").folder == Path("2026-01-01")
    assert [read(tmp_path, f"flip: {word}").flip for word in ("true", "yes", "on", "false")] == [
        True,
        True,
        True,
        False,
    ]


def test_hyphens_are_underscores_and_empty_files_are_defaults(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Two:
        two_words: int = 1

    assert from_mapping(Two, read_options(written(tmp_path, "two-words: 2"))).two_words == 2
    assert read(tmp_path, "") == Sample()
    assert read(tmp_path, "# nothing\n") == Sample()


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("cyclegan", "ngff", "unknown option 'ngff'. Did you mean 'ngf'? i2i train cyclegan --help-all lists all "),
        ("cyclegan", "lambda_cycle", "Did you mean 'lambda_cycle_B' or 'lambda_cycle_A' or "),
        ("cyclegan", "nothing_like_it", "unknown option 'nothing_like_it'. i2i train cyclegan --help-all lists all "),
        ("", "sty1e", "unknown option 'sty1e'. Did you mean 'style'? --help-all lists all "),
    ],
)
def test_of_many_options_the_nearest_are_named_and_where_the_rest_is(command: str, key: str, said: str) -> None:
    cls = class_of(options_of("train" if command else "translate", command), command)
    with pytest.raises(UsageError) as raised:
        from_mapping(cls, {key: 1})
    assert said in str(raised.value) and len(raised.value.args) == 1 and len(str(raised.value)) < 240


NUMBERS = (0, -1, 1.5, True, 10**30, float("nan"), 1j)
ODD = (*NUMBERS, "x", "1" * 5000, b"\xff", None, object(), int, [], {}, {"a": 1}, {1, 2}, (1,), (0, 5), (1, 2, 3))


@pytest.mark.parametrize("command", [*COMMANDS, *(f"train {name}" for name in ALGORITHMS)])
def test_a_wrong_value_is_said_in_our_words(command: str) -> None:
    """The option, the value, what was expected; and no word of the library that checks it."""
    name, _, algorithm = command.partition(" ")
    cls = class_of(options_of(name, algorithm), algorithm) if command != "train" else CallOptions
    refused = 0
    for option, value in itertools.product(option_names(cls), ODD):
        try:
            from_mapping(cls, {option: value})
        except UsageError as error:
            refused += 1
            assert re.match(rf"{option}(\.\d)? = .{{1,210}}: (expected |may be read in two ways)", str(error)), error
            assert not re.search(r"(?i)\binput\b|\bvalid\b|should|an instance of", str(error)), error
    assert refused >= len(option_names(cls))


@pytest.mark.promise("R48")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 0", r"config\.yaml: rate = 0: .*allowed: > 0, ≤ 10"),
        ("rate: 11", r"rate = 11: .*allowed: > 0, ≤ 10"),
        ("rate: .nan", r"rate = nan: "),
        ("weight: .inf", r"weight = inf: .*finite.*allowed: ≥ 0"),
        ("count: 0", r"count(\.\w+)* = 0: .*allowed: ≥ 1"),
        ("count: 1.5", r"count"),
        ("kind: bath", r"kind = 'bath': .*'batch' or 'instance'"),
        ("flip: perhaps", r"flip = 'perhaps'"),
        ("rtae: 1", r"unknown option 'rtae' \(line 1\)\. Did you mean 'rate'\? Known: rate, weight"),
        ("- 1\n- 2", r"expected `option: value` lines"),
        ("1: 2", r"expected `option: value` lines"),
        ("rate: [1", r"not valid YAML"),
        ("rate: !!python/object/apply:os.system [true]", r"not valid YAML"),
        ("a: &x 1\nb: *x", r"aliases \(\*x\) are not accepted"),
        ("a: " + "[" * 17 + "]" * 17, r"deeper than 16 levels"),
        ("a: " + "{a: " * 2000, r"deeper than 16 levels"),
        ("#" * ((1 << 20) + 1), r"at most 1048576 bytes"),
        ("rate: !!int x", r"not valid YAML"),
        ("rate: !!bool x", r"not valid YAML"),
        ("count: " + "9" * 5000, r"not valid YAML"),
        (b"\xff\xfe\x00", r"not valid YAML"),
        (b"a: \x07", r"not valid YAML"),
    ],
)
def test_what_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        read(tmp_path, text)
    assert not any("\n" in line for line in raised.value.args), "its arguments are its lines"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 1\nweight: 2\nrate: 3", r"config\.yaml, line 3: rate is given twice, first in line 1"),
        ("a-b: 1\n\na_b: 2", r"line 3: a_b is given twice, first in line 1"),
        ("numbers: {a: 1, a: 2}", r"line 1: 'a' is given twice"),
        ("rate: 1\ncount: 010", r"count = '010': may be read in two ways.*\(line 2\)"),
        ("count: 1_0", r"count = '1_0': may be read in two ways"),
        ("count: -0_1", r"count = '-0_1': may be read in two ways"),
        ("rate: 1_0.5", r"rate = '1_0\.5': may be read in two ways"),
        ("rate: 01.5", r"rate = '01\.5': may be read in two ways"),
        ("count: 4:46", r"count = '4:46': .*whole number.*\(line 1\)"),
        ("count: 0b11", r"count = '0b11': .*whole number"),
        ("rate: 1:30.5", r"rate = '1:30\.5': .*number"),
        ("# one\ncount: 0", r"count = 0: .*\(line 2\)"),
        ("# one\nrtae: 0", r"unknown option 'rtae'.*\(line 2\)"),
        ("count: 0x" + "f" * 5000, r"line 1: .*a number of 5002 digits"),
        ("count: 1" + "_0" * 5000, r"line 1: .*a number of 10001 digits"),
        ("<<: {rate: 1}", r"unknown option '<<'"),
        ("[a]: 1", r"line 1: a key that is no word"),
        ("rate: 1\n---\nrate: 2", r"a second document"),
    ],
)
def test_what_yaml_would_take_in_silence(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_numbers_that_are_meant_as_such(tmp_path: Path) -> None:
    for text, count in (("10", 10), ("0x20", 32), ("'12'", 12), ("+3", 3)):
        assert read(tmp_path, f"count: {text}").count == count
    assert read(tmp_path, "rate: .5").rate == 0.5 and read(tmp_path, "count: ~").count is None
    assert read(tmp_path, "folder: 010").folder == Path("010") and read(tmp_path, "folder: 1_0").folder == Path("1_0")


@pytest.mark.promise("R48")
@pytest.mark.parametrize(
    "text",
    [
        "data: 1" + ":59" * 340_000,
        "data: [" + "[]," * 349_000 + "[]]",
        "".join(f"a{i}: b\n" for i in range(100_000)),
        "\n" * 1_000_000 + "[",
        'a: "' + "\\uDCE9" * 160_000 + '"',
    ],
    ids=["base 60", "brackets", "keys", "blank lines", "escapes that libyaml does not read"],
)
def test_a_mebibyte_of_yaml_takes_no_time(text: str, tmp_path: Path) -> None:
    before = time.process_time()
    with contextlib.suppress(UsageError):
        read(tmp_path, text)
    assert time.process_time() - before < 2, "on a slow machine; it was 15 to 30 seconds"


def test_with_and_without_libyaml_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["rate: 1e-4 # x", "files: [a, 'b: c', \"\\u00e9\"]\n", "folder: |\n  é\n  x\n", "numbers: {a: 1, b: .inf}"]
    paths = [written(tmp_path / str(i), text) for i, text in enumerate(texts) if (tmp_path / str(i)).mkdir() is None]
    fast = [read_options(path) for path in paths]
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    assert [read_options(path) for path in paths] == fast


@pytest.mark.parametrize("name", [b"photos_\xe9", b"\xff\xfe", "\u00fc \U0001f600 \u2028 'quoted' #".encode()])
def test_any_name_comes_back(name: bytes, tmp_path: Path) -> None:
    sample = Sample(folder=Path(os.fsdecode(name)), files=(Path(os.fsdecode(name)),))
    assert read(tmp_path, to_yaml(sample)) == sample


def test_an_algorithm_is_named_and_checked(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Sample):
        algorithm: ClassVar[str] = "mine"

    path = written(tmp_path, to_yaml(Mine(rate=2)))
    assert read_options(path)["algorithm"] == "mine"
    assert from_mapping(Mine, read_options(path)) == Mine(rate=2)
    with pytest.raises(
        UsageError, match=r"algorithm: this configuration is for 'other', not for 'mine': use i2i train other$"
    ):
        from_mapping(Mine, {"algorithm": "other"})
    for other in ("pix2pix", "distill"):
        with pytest.raises(
            UsageError,
            match=rf"algorithm: this configuration is for '{other}', not for 'cyclegan': use i2i train {other}$",
        ):
            from_mapping(CycleGANOptions, {"algorithm": other})
    with pytest.raises(
        UsageError, match=r"algorithm: this configuration is for a training by 'mine', and this command trains nothing"
    ):
        read(tmp_path, path.read_text())


@pytest.mark.promise("R48")
def test_a_billion_laughs(tmp_path: Path) -> None:
    laughs = ["a0: &a0 [ha, ha, ha]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UsageError, match="aliases"):
        read(tmp_path, "\n".join(laughs))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(":-[]{}&*!|>'\"% \nab1").map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(UsageError):
        read(tmp_path, data)


def test_a_configuration_of_ours_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Path(__file__).parents[1] / "configs" / "gan_toy.yaml"
    with pytest.raises(UsageError, match=rf"^configs/gan_toy\.yaml: .*\. Did you mean {re.escape(str(ours))}\?$"):
        read_options(Path("configs/gan_toy.yaml"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml: cannot read this configuration: No such file"):
        read_options(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_options(tmp_path)
    with pytest.raises(UsageError, match="at most"):
        read_options(Path("/dev/zero"))


def test_a_configuration_made_in_code_is_held_to_its_ranges() -> None:
    assert checked(Sample(rate=3)) == Sample(rate=3.0)
    with pytest.raises(UsageError, match="rate = -1"):
        checked(Sample(rate=-1))


def test_plain_values() -> None:
    assert to_mapping(Sample(folder=Path("a"), files=(Path("b"),)))["files"] == ["b"]
    assert nearest("unet_265", ["unet_256", "resnet"]) == " Did you mean 'unet_256'?"
    assert nearest("x", ["unet_256"]) == ""


def test_a_value_that_fits_no_member_of_a_union_is_one_error() -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping(FolderOptions, {"batch_size": 0})
    assert str(caught.value) == ("batch_size = 0: expected a number in range or 'auto' (allowed: ≥ 1, ≤ 4096)")


@dataclass(frozen=True, kw_only=True)
class Training:
    data: str = ""
    lr: float = 1.0
    ngf: int = 1
    own: int = 0


def test_options_are_written_by_groups_and_read_under_any_heading_or_none(tmp_path: Path) -> None:
    given = Training(data="photos", lr=2.0, ngf=3, own=4)
    text = to_yaml(given)
    assert text == "data: photos\nown: 4\nnetworks:\n  ngf: 3\noptimisation:\n  lr: 2.0\n"
    under_one = "data: photos\nlosses: {lr: 2, ngf: 3, own: 4}"
    empty = "losses:\ndata: photos\nlr: 2\nngf: 3\nown: 4\nnetworks: ~"
    for form in (text, "data: photos\nlr: 2\nngf: 3\nown: 4", under_one, empty):
        assert from_mapping(Training, read_options(written(tmp_path, form))) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\noptimisation:\n  lr: 2", r"line 3: lr is given twice, first in line 1"),
        ("optimization:\n  lr: 2", r"unknown option 'optimization'.* Did you mean 'optimisation'"),
        ("networks:\n  nfg: 2", r"unknown option 'nfg' \(line 2\)\. Did you mean 'ngf'"),
        ("networks:\n  losses:\n    lr: 2", r"unknown option 'losses'"),
    ],
)
def test_mistakes_under_headings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_mapping(Training, read_options(written(tmp_path, text)))
