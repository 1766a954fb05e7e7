"""Whether the options of a training fit each other. Nothing here needs torch, so the command line answers at once."""

from typing import TYPE_CHECKING

from i2i.data.options import TOY, check_crop
from i2i.data.walking import exists
from i2i.errors import InputError, UsageError
from i2i.training import early_stopping
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions, TrainingOptions


def check(options: "RunOptions", *, needs_data: bool = True) -> None:
    """Checks the options without opening the data or building a network.

    Raises `UsageError` for options that are missing or contradict each other, `InputError` for data that are not there.
    """
    if needs_data and options.data is None:
        raise UsageError("data: missing; give --data a folder, a CSV file of pairs, or `toy`")
    if not isinstance(options.data, StorePath) and options.data not in (None, TOY) and not exists(options.data):
        from i2i.data.folders import near_to

        raise InputError(f"{options.data}: no such folder.{near_to(options.data)}")
    if options.n_epochs + options.n_epochs_decay == 0:
        raise UsageError("n_epochs = 0, n_epochs_decay = 0: nothing to train")
    if options.batch_size != "auto":
        check_micro_batches(options.batch_size, options.micro_batches)
        check_crop(options)
    early_stopping.parse(options.stop_when)
    early_stopping.parse_floor(options.best_floor)
    if (name := follows_validation(options)) and not options.validate_every:
        value = getattr(options, name)
        raise UsageError(f"{name} = {value!r}: follows the validation, but validate_every = 0 turns it off")


def check_micro_batches(batch_size: int, micro_batches: int) -> None:
    """Raises `UsageError` unless the batch divides evenly."""
    if batch_size % micro_batches:
        raise UsageError(f"micro_batches = {micro_batches}: must divide batch_size = {batch_size}")


def follows_validation(options: "TrainingOptions") -> str:
    """The first option that needs validations; empty if there is none."""
    following = {
        "lr_policy": options.lr_policy == "plateau",
        "stop_when": bool(options.stop_when.strip()),
        "stop_patience": options.stop_patience > 0,
        "best_floor": bool(options.best_floor.strip()),
    }
    return next((name for name, follows in following.items() if follows), "")
