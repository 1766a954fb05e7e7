"""Pictures of the user through the model of a run, for the page."""

from pathlib import Path

from i2i.data.folders import find_images
from i2i.errors import ImageError, InputError
from i2i.evaluation.page.pictures import Pair, pixels_of, shown, within
from i2i.images import read

MAX_PICTURES = 24
MAX_SHORTER_SIDE = 512


def translated_pairs(
    run: Path, folder: Path, direction: str | None, device: str, notices: list[str]
) -> tuple[list[Pair], list[str]]:
    """The first `MAX_PICTURES` pictures of `folder` with their translations, and those that failed, with the reason.

    One whose shorter side is longer than 512 pixels is scaled to that first. Raises `InputError` if there are no
    pictures, and what `i2i.load_translator` raises if the run has no model of that direction.
    """
    from i2i.translation.translator import load_translator  # here: only this part of a report needs torch

    paths = find_images(folder) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no pictures in this folder" if folder.is_dir() else f"{folder}: no such folder")
    translator = load_translator(run, direction, device)
    pairs, failed = [], []
    for path in paths[:MAX_PICTURES]:
        name = path.relative_to(folder).as_posix()
        try:
            picture = read(path)
            large = min(picture.pixels.shape[:2]) > MAX_SHORTER_SIDE
            result = translator.translate(picture, MAX_SHORTER_SIDE if large else None)
            after = shown(pixels_of(result), f"{name}, translated")
            before = shown(pixels_of(picture), name)
            pairs.append(Pair(before, after, f"{name}: input | output" + (" (scaled)" if large else "")))
        except ImageError as error:
            failed.append(f"{name}: {error}")
    kept = within(pairs)
    if len(kept) + len(failed) < len(paths):
        notices.append(f"{len(kept)} of {len(paths)} pictures of {folder.name} are shown, the first by name")
    return kept, failed
