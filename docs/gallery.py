"""Draw the pictures of README.md and docs/gallery.md anew, for instance after the weights of a style changed.

python docs/gallery.py painted PHOTOS                        # PHOTOS holds the photographs that docs/gallery.md names
python docs/gallery.py painted PHOTOS --style monet vangogh  # the same by several painters
python docs/gallery.py toy RUNS                              # RUNS holds the run folders of configs/*_toy.yaml
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import i2i
from i2i import images

OUT = Path(__file__).parent / "images"
STRIP = ("oceanic_315998", "oceanic_434614", "popos_jad-limcaco-183877")
GALLERY = {
    "lake": "popos_sean-afnan-244576",
    "bay": "oceanic_164041",
    "boat": "oceanic_69762",
    "night": "skimage_rocket",
}
TOY_RUNS = ("pix2pix_toy", "segmentation_toy", "colorization_toy")
STRIP_TILE, GALLERY_TILE = (420, 280), (520, 347)
GAP, QUALITY = 6, 85


def grid(rows: list[list[Image.Image]], tile: tuple[int, int]) -> Image.Image:
    """The images of each row side by side, each cut to `tile` (width, height) around its middle."""
    width, height = tile
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(ImageOps.fit(image, tile), (x * (width + GAP), y * (height + GAP)))
    return sheet


def write(name: str, sheet: Image.Image) -> None:
    images.write(OUT / name, images.Picture(np.asarray(sheet)), quality=QUALITY)


def painted(photos: Path, styles: Sequence[str]) -> None:
    """`strip.jpg` for README.md: a row of photographs and a row for each style. For docs/gallery.md `STYLE-NAME.jpg`: a
    photograph beside its translation."""
    read = {name: images.read(photos / f"{name}.jpg").channels(3) for name in (*STRIP, *GALLERY.values())}
    rows = [[Image.fromarray(read[name]) for name in STRIP]]
    for style in styles:
        translate = i2i.load_translator(style)
        rows.append([Image.fromarray(translate(read[name])) for name in STRIP])
        for name, photo in GALLERY.items():
            pair = [Image.fromarray(read[photo]), Image.fromarray(translate(read[photo]))]
            write(f"{style}-{name}.jpg", grid([pair], GALLERY_TILE))
    write("strip.jpg", grid(rows, STRIP_TILE))


def toy(runs: Path) -> None:
    """The last sample grids of the runs side by side, four times as large: `toy.png`."""
    last = [max((runs / name / "samples").glob("*.png")) for name in TOY_RUNS]
    samples = [Image.fromarray(images.read(path).channels(3)) for path in last]
    enlarged = [image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST) for image in samples]
    write("toy.png", grid([enlarged], enlarged[0].size))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("painted", "toy"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--style", nargs="+", default=["monet"])
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    if arguments.kind == "toy":
        toy(arguments.folder)
    else:
        painted(arguments.folder, arguments.style)
