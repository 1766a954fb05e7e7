"""Draw the pictures of README.md and docs/gallery.md anew, for instance after the weights of a style changed.

python docs/gallery.py painted PHOTOS  # PHOTOS holds the photographs that docs/gallery.md names
python docs/gallery.py blended PHOTOS
python docs/gallery.py toy RUNS        # RUNS holds the run folders of configs/*_toy.yaml
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import i2i
from i2i import images

OUT = Path(__file__).parent / "images"
STYLES = ("monet", "cezanne", "vangogh", "ukiyoe")  # of the strip
SHEET_STYLES = ("monet", "monet-lite", "cezanne", "cezanne-lite", "vangogh", "vangogh-lite", "ukiyoe", "ukiyoe-lite")
STRIP = ("oceanic_315998", "popos_sean-afnan-244576", "popos_jad-limcaco-183877")
SHEET = (
    *STRIP, "oceanic_434614", "oceanic_105518", "oceanic_164041", "oceanic_69762", "oceanic_188029",
    "popos_galen-crout-175291", "popos_nasa-53884", "skimage_rocket", "skimage_chelsea",
)  # fmt: skip
BLENDED = "oceanic_315998"
TOY_RUNS = ("pix2pix_toy", "segmentation_toy", "colorization_toy")
TILE = (252, 168)
GAP, QUALITY = 4, 82


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


def painted(photos: Path) -> None:
    """`sheet.jpg` for docs/gallery.md: a row for each photograph, itself and then each style. The first rows are
    `strip.jpg` for README.md."""
    read = [images.read(photos / f"{name}.jpg").channels(3) for name in SHEET]
    columns = {"": [Image.fromarray(pixels) for pixels in read]}
    for style in SHEET_STYLES:
        translate = i2i.load_translator(style)
        columns[style] = [Image.fromarray(translate(pixels)) for pixels in read]
    write("sheet.jpg", grid([list(row) for row in zip(*columns.values(), strict=True)], TILE))
    strip = [columns[name][: len(STRIP)] for name in ("", *STYLES)]
    write("strip.jpg", grid([list(row) for row in zip(*strip, strict=True)], TILE))


def blended(photos: Path) -> None:
    """`blend.jpg` for docs/translate.md: the photograph and three strengths; a mask, both kept colours and a mix."""
    pixels = images.read(photos / f"{BLENDED}.jpg").channels(3)
    translate, mix = i2i.load_translator("ukiyoe"), i2i.load_mix({"ukiyoe": 0.5, "vangogh": 0.5})
    # from left to right, softly, in the middle third
    mask = np.tile(np.linspace(-1, 2, pixels.shape[1]).clip(0, 1), (len(pixels), 1))
    strengths = [translate(pixels, strength=strength) for strength in (0, 0.3, 0.6, 1)]
    others = [translate(pixels, mask=mask), *(translate(pixels, keep=keep) for keep in ("luminance", "colour"))]
    rows = [[Image.fromarray(tile) for tile in row] for row in (strengths, [*others, mix(pixels)])]
    write("blend.jpg", grid(rows, TILE))


def toy(runs: Path) -> None:
    """The last sample grids of the runs side by side, four times as large: `toy.png`."""
    last = [max((runs / name / "samples").glob("*.png")) for name in TOY_RUNS]
    samples = [Image.fromarray(images.read(path).channels(3)) for path in last]
    enlarged = [image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST) for image in samples]
    write("toy.png", grid([enlarged], enlarged[0].size))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"painted": painted, "blended": blended, "toy": toy}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    kinds[arguments.kind](arguments.folder)
