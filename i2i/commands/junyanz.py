"""Options of junyanz/pytorch-CycleGAN-and-pix2pix, and the words that say the same here.

`docs/migrate.md` has the same as a table, with notes; a test compares the two.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

_IN_THE_FILE = "nothing; the model file says it"
_RESUMES = "the same command again goes on from the newest state"
_SAVING = "--save-every STEPS, --save-minutes, --keep-last, --keep-every"
_SAMPLES = "--sample-every STEPS, --samples; the grids are in samples/ of the run folder"
_NO_ACCOUNT = "nothing; log.jsonl in the run folder has the losses, and TensorBoard reads it if it is installed"

TRAINING: dict[str, str] = {
    "dataroot": "--data {}",
    "name": "--run runs/{}",
    "checkpoints_dir": "--run FOLDER, which names the folder and the run",
    "model": "the command, such as i2i train cyclegan",
    "input_nc": "--channels-a {} (--channels-b with --direction b2a)",
    "output_nc": "--channels-b {} (--channels-a with --direction b2a)",
    "netG": "--generator {}",
    "netD": "--discriminator patchgan_70, patchgan_16, ... or pixelgan",
    "n_layers_D": "--discriminator patchgan_16, _34, _70, _142 or _286 for 1 to 5 layers",
    "dataset_mode": "nothing; it follows from the algorithm and the folder",
    "serial_batches": "nothing; the order is a function of --seed, and each picture comes once an epoch",
    "num_threads": "--workers {}",
    "max_dataset_size": "nothing; put fewer pictures into the folder",
    "display_winsize": "nothing; pictures are shown as large as they are",
    "lr_decay_iters": "--lr-decay-epochs {}",
    "lambda_A": "--lambda-cycle-A {}",
    "lambda_B": "--lambda-cycle-B {}",
    "continue_train": f"nothing; {_RESUMES}",
    "epoch_count": f"nothing; {_RESUMES}",
    "epoch": f"nothing; {_RESUMES}",
    "load_iter": f"nothing; {_RESUMES}",
    "save_latest_freq": _SAVING,
    "save_epoch_freq": _SAVING,
    "save_by_iter": _SAVING,
    "display_freq": _SAMPLES,
    "update_html_freq": _SAMPLES,
    "no_html": _SAMPLES,
    "display_id": _SAMPLES,
    "display_ncols": _SAMPLES,
    "display_server": _SAMPLES,
    "display_env": _SAMPLES,
    "display_port": _SAMPLES,
    "print_freq": "--log-every {}",
    "phase": "nothing; training reads train/, validation val/, else test/",
    "gpu_ids": "--device cuda:0, or cpu; several GPUs: torchrun --nproc-per-node N",
    "suffix": "--run runs/NAME",
    "model_suffix": "--run runs/NAME",
    "use_wandb": _NO_ACCOUNT,
    "wandb_project_name": _NO_ACCOUNT,
    # the same here, but of certain algorithms
    "lambda_identity": "nothing; it is an option of i2i train cyclegan",
    "lambda_L1": "nothing; it is an option of i2i train pix2pix",
    "pool_size": "nothing; this algorithm shows its discriminators no past fakes",
    # its earlier versions
    "batchSize": "--batch-size {}",
    "loadSize": "--load-size {}",
    "fineSize": "--crop-size {}",
    "nThreads": "--workers {}",
    "niter": "--n-epochs {}",
    "niter_decay": "--n-epochs-decay {}",
    "which_direction": "--direction a2b or b2a",
    "which_model_netG": "--generator {}",
    "which_model_netD": "--discriminator patchgan_70, patchgan_16, ... or pixelgan",
    "which_epoch": f"nothing; {_RESUMES}",
    "resize_or_crop": "--preprocess {}",
    "identity": "--lambda-identity {}",
    "no_lsgan": "--gan-mode vanilla",
    # CUT
    "CUT_mode": "i2i train cut; FastCUT is configs/fastcut_monet2photo.yaml",
}
"""Their option → the words to type here; {} is its value."""

TRANSLATING: dict[str, str] = {
    "dataroot": "the pictures without a flag: i2i translate --style STYLE {} -o OUT",
    "name": "--style runs/{}",
    "checkpoints_dir": "--style FOLDER, the folder of the run",
    "model": "nothing; --style says what translates",
    "num_test": "nothing; all pictures that are given are translated",
    "results_dir": "-o {}",
    "aspect_ratio": "nothing; the output is as large as the input",
    "load_size": "--size {}, or nothing: the output is as large as the input",
    "crop_size": "nothing; pictures of any size are translated whole",
    "preprocess": "nothing; pictures of any size are translated whole",
    "eval": "--norm-stats running --dropout False",
    "no_dropout": "--dropout False",
    "epoch": "--style runs/NAME/a2b-best.safetensors, or another model file",
    "load_iter": "--style runs/NAME/a2b-best.safetensors, or another model file",
    "which_epoch": "--style runs/NAME/a2b-best.safetensors, or another model file",
    "how_many": "nothing; all pictures that are given are translated",
    "phase": "the folder itself, such as mydata/testA",
    "suffix": "-o OUT",
    "model_suffix": "--style runs/NAME with --direction a2b or b2a",
    "max_dataset_size": "nothing; give fewer pictures",
    "serial_batches": "nothing; results do not depend on the order",
    "no_flip": "nothing; pictures are not mirrored",
    "num_threads": "--workers {}",
    **dict.fromkeys(
        ("input_nc", "output_nc", "ngf", "ndf", "netG", "netD", "n_layers_D", "norm", "init_type", "init_gain"),
        _IN_THE_FILE,
    ),
}
"""The same for commands that use a trained network. Other options are answered as for training."""

VALUES: dict[str, dict[str, str]] = {
    "model": {
        "cycle_gan": "i2i train cyclegan",
        "pix2pix": "i2i train pix2pix",
        "colorization": "i2i train colorization",
        "cut": "i2i train cut",
        "test": "i2i translate",
    },
    "netD": {"basic": "--discriminator patchgan_70", "pixel": "--discriminator pixelgan"},
    "n_layers_D": {
        str(layers): f"--discriminator patchgan_{width}"
        for layers, width in {1: 16, 2: 34, 3: 70, 4: 142, 5: 286}.items()
    },
    "gpu_ids": {"-1": "--device cpu", **{str(number): f"--device cuda:{number}" for number in range(8)}},
    "which_direction": {"AtoB": "--direction a2b", "BtoA": "--direction b2a"},
}
"""Answers to certain values."""

_OURS = {"direction": {"AtoB": "a2b", "BtoA": "b2a"}, "norm": {"syncbatch": "batch"}}
"""Values there of options that have the same name here."""


COMMANDS = {"test": " Their test.py is: i2i translate --style runs/NAME PICTURES -o OUT."}
"""Their programs that are no commands here, and what to type."""

_HEAD = "these options of pytorch-CycleGAN-and-pix2pix have other names here (all: docs/migrate.md)"
_COMMAND = "i2i train "
_SWAPPED = {"input_nc": "--channels-b {}", "output_nc": "--channels-a {}"}
"""With `--direction BtoA` their input is our domain B."""


def translated(words: Sequence[str], known: Collection[str]) -> list[str]:
    """The lines of the answer to options of theirs among `words`; none if there are none, or if the command with our
    flags `known` neither trains nor translates folders, which is all that theirs did.

    If `--model` names an algorithm of ours, the last line is the whole command, with all options that have one answer.
    """
    trains = "--max-steps" in known
    if not trains and not {"--style", "--skip-existing"} <= {*known}:
        return []
    ours = {*known, *(flag.replace("--", "--no-", 1) for flag in known if trains), "--verbose", "--config"}
    given, theirs = list[list[str]](), list[list[str]]()
    for option in _options(words):
        is_ours = option[0].replace("_", "-") in ours
        given.append(option if is_ours else option[:2])  # theirs take one value; inputs may follow
        theirs += [] if is_ours else given[-1:]
    answers = {flag: answer for flag, *values in theirs if (answer := _answer(flag, " ".join(values), trains))}
    if not answers:
        return []
    if not any(flag == "--model" for flag, *_ in given):  # else the answer is for another command than this one
        answers = {flag: _if_known(answer, known) for flag, answer in answers.items()}
    backwards = ["--direction", "BtoA"] in given
    for flag, *values in given:
        if flag in ("--input_nc", "--output_nc") and backwards and trains:
            answers[flag] = _SWAPPED[flag.removeprefix("--")].format(*values or ["VALUE"])
        elif (value := " ".join(values)) in (here := _OURS.get(flag.removeprefix("--"), {})):
            answers[flag] = f"{flag} {here[value]}"
        elif [flag, *values] in theirs and flag not in answers:
            answers[flag] = "no option here; --help-all lists all options"
    rows = [(" ".join(option), answers[option[0]]) for option in given if option[0] in answers]
    width = max(28, *(len(there) for there, _ in rows))
    lines = [f"  {there:<{width}} {answer}" for there, answer in rows]
    model = next((answer for flag, answer in answers.items() if flag == "--model"), "")
    whole = [f"together: {_together(model, given, answers)}"] if trains and model in VALUES["model"].values() else []
    return [_HEAD, *lines, *(whole if model.startswith(_COMMAND) else [])]


def _options(words: Sequence[str]) -> Iterator[list[str]]:
    """Each flag among `words`, with the values after it, but for short flags such as `-o`."""
    option: list[str] = []
    for word in (*words, "--"):
        if word.startswith("--") or re.match("-[a-z]", word):
            if option:
                yield option
            flag, _, value = word.partition("=")
            option = [flag, *filter(None, [value])] if word[2:] else []  # `-o` is short
        elif option:
            option.append(word)


def _answer(flag: str, value: str, trains: bool) -> str:
    """The words to type for a flag of theirs; empty if there is no such flag."""
    name = flag.removeprefix("--").replace("-", "_")
    answer = (None if trains else TRANSLATING.get(name)) or VALUES.get(name, {}).get(value) or TRAINING.get(name)
    return (answer or TRANSLATING.get(name, "")).format(value or "VALUE")


def _if_known(answer: str, known: Collection[str]) -> str:
    """The answer, unless it is an option that this command has not."""
    option = answer.partition(" ")[0]
    return answer if not option.startswith("--") or option in known else f"nothing; this command has no {option}"


def _together(command: str, given: Sequence[Sequence[str]], answers: Mapping[str, str]) -> str:
    """The command with our options: those that were given, and each answer that is one option with its value."""
    typed: dict[str, list[str]] = {}
    for flag, *values in given:
        answer = answers.get(flag)
        if answer is None:
            typed.setdefault(flag, values)
        elif match := re.fullmatch(r"(--[\w-]+) (\S.*?)(?: \(.*\))?", answer):
            option, value = match.groups()
            if value == " ".join(values) or re.fullmatch(r"[\w./:]+", value):
                typed.setdefault(option, values if value == " ".join(values) else [value])
    return command + "".join(f" {shlex.join([flag, *values])}" for flag, values in typed.items())


def value_here(values: Mapping[str, Any]) -> str:
    """A sentence for a value of theirs, given to an option that has the same name here."""
    found = [
        f"; their {value} is --{name} {_OURS[name][value]} here"
        for name, value in values.items()
        if isinstance(value, str) and value in _OURS.get(name, {})
    ]
    return "".join(found)
