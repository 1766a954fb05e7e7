"""A flag of pytorch-CycleGAN-and-pix2pix is answered by its name here."""

import re
from pathlib import Path

import pytest

from i2i.cli import _parsed
from i2i.commands import ALGORITHMS
from i2i.commands.junyanz import TRAINING, TRANSLATING, translated
from i2i.commands.line import read_line
from i2i.commands.options import options_of
from i2i.errors import UsageError

MIGRATE = Path(__file__).parents[2] / "docs" / "migrate.md"
FLAGS = {option.flag for name in ALGORITHMS for option in options_of("train", name)}


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("--dataroot maps --name x", ["--dataroot maps +--data maps", "--name x +--run runs/x"]),
        ("--model cycle_gan --netG=unet_256", ["i2i train cyclegan", "--generator unet_256"]),
        ("--netD basic --gpu_ids -1", ["--discriminator patchgan_70", "--device cpu"]),
        ("--netD n_layers --n_layers_D 5", ["--discriminator patchgan_286"]),
        ("--gpu_ids 0,1 --continue_train", ["torchrun", "the same command again"]),
        ("--num_threads 4 --checkpoints_dir c", ["--workers 4", "--run FOLDER"]),
        ("--lambda_A 10 --niter 5 --fineSize 128", ["no --lambda-cycle-A", "--n-epochs 5", "--crop-size 128"]),
    ],
)
def test_an_answer_names_ours(words: str, answers: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        read_line(words.split(), options_of("train", "pix2pix"))
    for answer in answers:
        assert re.search(answer, str(refused.value)), str(refused.value)


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (
            "--dataroot ./maps --name m --model cycle_gan --netG resnet_9blocks --direction BtoA --gpu_ids -1",
            "i2i train cyclegan --data ./maps --run runs/m --generator resnet_9blocks --direction b2a --device cpu",
        ),
        (
            "--name=m --model=pix2pix --direction BtoA --input_nc 1 --lambda_L1 10 --no_flip --gpu_ids 0,1 --no_html",
            "i2i train pix2pix --run runs/m --direction b2a --channels-b 1 --lambda_L1 10 --no_flip",
        ),
        (
            "--dataroot m --model cycle_gan --netD n_layers --n_layers_D 4 --use_wandb --verbose --foo 3 --suffix x",
            "i2i train cyclegan --data m --discriminator patchgan_142 --verbose --run runs/NAME",
        ),
    ],
)
def test_a_training_typed_by_habit_is_answered_with_the_command_to_paste(words: str, whole: str) -> None:
    """Options of theirs that are none here are listed, and left out of it; ours stay as they were typed."""
    with pytest.raises(UsageError) as refused:
        _parsed(["train", *words.split()], "")
    *table, last = str(refused.value).splitlines()
    assert last == f"together: {whole}"
    assert [line.split()[:2] for line in table if "--foo" in line] == ([["--foo", "3"]] if "--foo" in words else [])
    assert not any("--no_flip" in line or "--verbose" in line for line in table)


def test_a_name_with_blanks_stays_one_word_of_the_command() -> None:
    answer = translated(["--dataroot", "my maps", "--name", "x", "--model", "pix2pix"], FLAGS)
    assert answer[-1] == "together: i2i train pix2pix --data 'my maps' --run runs/x"
    assert not any("together" in line for line in translated(["--dataroot", "maps", "--model", "test"], FLAGS))


def test_their_program_for_testing_is_answered_with_the_command_here() -> None:
    with pytest.raises(UsageError, match=r"unknown command 'test'\. Their test\.py is: i2i translate"):
        _parsed(["test", "--dataroot", "maps"], "")


REFERENCE = (
    "dataroot name gpu_ids checkpoints_dir model input_nc output_nc ngf ndf netD netG n_layers_D norm init_type "
    "init_gain no_dropout dataset_mode direction serial_batches num_threads batch_size load_size crop_size "
    "max_dataset_size preprocess no_flip display_winsize epoch load_iter verbose suffix use_wandb wandb_project_name"
)
"""The options of all programs of the reference."""
OF_TRAINING = (
    "display_freq display_ncols display_id display_server display_env display_port update_html_freq print_freq no_html "
    "save_latest_freq save_epoch_freq save_by_iter continue_train epoch_count phase n_epochs n_epochs_decay beta1 lr "
    "gan_mode pool_size lr_policy lr_decay_iters lambda_A lambda_B lambda_identity lambda_L1"
)
OF_TESTING = "results_dir aspect_ratio phase eval num_test model_suffix"


@pytest.mark.parametrize("command", [*ALGORITHMS, "translate"])
def test_every_option_is_ours_or_answered_by_one_that_the_command_has(command: str) -> None:
    known = {"--verbose"}
    for option in options_of("train", command) if command in ALGORITHMS else options_of(command):
        known |= {option.flag, *([option.flag.replace("--", "--no-", 1)] if option.is_switch else [])}
    for name in f"{REFERENCE} {OF_TRAINING if command in ALGORITHMS else OF_TESTING}".split():
        if f"--{name}".replace("_", "-") in known:
            continue
        answer = translated([f"--{name}", "x"], known)
        assert len(answer) >= 2, name
        begins = answer[1].split()[2]
        assert not begins.startswith("--") or begins in known, answer[1]


def test_inputs_and_outputs_are_no_values_of_their_options() -> None:
    for words in ("--num_threads 4 photos -o out", "--num_threads 4 -o out photos"):
        _, answer = translated(words.split(), {option.flag for option in options_of("translate")})
        assert answer.split() == ["--num_threads", "4", "--workers", "4"]


def test_a_translation_is_answered_otherwise() -> None:
    with pytest.raises(UsageError) as refused:
        words = "--dataroot photos --results_dir out --num_test 50 --name x --gpu_ids 0"
        read_line(words.split(), options_of("translate"))
    said = str(refused.value)
    for answer in ("--style STYLE photos", "-o out", "all pictures", "--style runs/x", "--device cuda:0"):
        assert answer in said


@pytest.mark.parametrize(("value", "ours"), [("BtoA", "b2a"), ("AtoB", "a2b")])
def test_a_value_is_answered_too(value: str, ours: str) -> None:
    with pytest.raises(UsageError, match=f"their {value} is --direction {ours} here"):
        read_line(["--direction", value], options_of("train", "pix2pix"))


def test_what_has_one_name_in_both_is_ours() -> None:
    same = "--batch_size 2 --load_size 30 --crop_size 30 --n_epochs 1 --lr_policy step --pool_size 5 --lambda_L1 3"
    known = [*options_of("train", "cyclegan"), *options_of("train", "pix2pix")]
    assert translated(same.split(), FLAGS) == []
    assert read_line(same.split(), list({option.name: option for option in known}.values())).given["pool_size"] == 5


def test_the_page_of_names_has_the_same() -> None:
    """Each flag of the table of training is answered, or has the same name here; each answer is on the page."""
    rows = [line.split("|")[1] for line in MIGRATE.read_text().splitlines() if line.startswith("| `--")]
    named = {flag for row in rows for flag in re.findall(r"--(\w+)", row)} - {"nproc_per_node", "display_"}
    known = {flag.removeprefix("--").replace("-", "_") for flag in FLAGS} | {"verbose", "no_dropout", "no_flip"}
    assert named - known - set(TRAINING) - set(TRANSLATING) == set()
    text = MIGRATE.read_text()
    assert [name for name in TRAINING if f"--{name}" not in text and not name.startswith("display_")] == []
