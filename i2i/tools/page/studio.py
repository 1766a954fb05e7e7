"""Visitors' pictures in, translated ones out: the work behind the page, without a browser in it.

Files are numbered before they are planned: a browser drops the tree of a folder, and two files may have one name.
`translate_folder` then keeps names, formats and all that it keeps elsewhere.
"""

import contextlib
import os
import re
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

import numpy as np
from PIL import Image

from i2i import images
from i2i.config import option_names
from i2i.errors import ImageError, UsageError
from i2i.files import WINDOWS, is_reserved
from i2i.folders.batch import translate_folder
from i2i.folders.report import Record
from i2i.images.encoding import as_pil
from i2i.images.formats import LOSSY, SUFFIXES, UNREAD, WRITTEN
from i2i.inference.mix import mix_name, mixed
from i2i.inference.options import Keep, ModelOptions
from i2i.inference.scaling import resized
from i2i.inference.translator import Translator, load_translator
from i2i.models.styles import BUNDLED, Style
from i2i.terminal import printable

EXAMPLE = BUNDLED / "photos" / "bay.jpg"
PREVIEW = 1280
"""The longer side, in pixels, of a picture as the page shows it."""
_LOADED = 4
_MAX_NAME_BYTES = 120
_FEW_PICTURES = ((512, 512),)
"""Sizes by which `load_translator` takes the runtime that starts soonest."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The limits of one order: bytes and pixels of a picture, number of pictures, seconds, bytes of all results."""

    file_bytes: int = 64_000_000
    pixels: int = 50_000_000
    pictures: int = 200
    seconds: float = 600.0
    result_bytes: int = 1 << 30


@dataclass(frozen=True)
class Upload:
    """A file that a visitor has sent, and the name that it had there."""

    path: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """A visitor's wish: pictures, the names of styles, and options of `translate_folder`.

    `mix` has the weights of a mix of styles, which is made beside the single ones; empty for none. `drawn` is a mask as
    it was drawn: a PNG of any size, whose opaque parts are translated. It fits itself to each picture; a mask that was
    uploaded must have the size of the pictures, and counts before it.
    """

    uploads: Sequence[Upload]
    styles: Sequence[str]
    mix: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    strength: float = 1.0
    keep: Keep | None = None
    mask: Upload | None = None
    drawn: bytes = b""

    @property
    def versions(self) -> dict[str, Mapping[str, float]]:
        """By their names, the weights of each version of a picture: of each style, and of the mix."""
        versions: dict[str, Mapping[str, float]] = {name: {name: 1.0} for name in self.styles}
        return versions | ({mix_name(self.mix): self.mix} if self.mix else {})


@dataclass(frozen=True)
class Result:
    """A translated picture: the whole `file`, and how the page shows it `before` and `after`."""

    name: str
    style: str
    file: Path
    before: Path
    after: Path


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    picture: str
    style: str
    status: str
    note: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of an order. `archive` holds all results, None if there are none."""

    results: Sequence[Result]
    rows: Sequence[Row]
    archive: Path | None


class Studio:
    """Translates for all visitors, one order at a time."""

    def __init__(self, styles: Mapping[str, Style], options: ModelOptions, bounds: Bounds) -> None:
        self.styles, self.bounds = styles, bounds
        self._limits = images.Limits(bounds.pixels, file_bytes=bounds.file_bytes)
        self._options = {name: getattr(options, name) for name in option_names(ModelOptions())}
        self._loaded: dict[str, Translator] = {}
        self.examples: dict[str, tuple[Path, Path]] = {}
        """By style, the pictures of `example` that are made."""
        self._alone, self._loading = Lock(), Lock()
        self._idle, self._closing = Event(), Event()
        self._idle.set()

    def close(self) -> None:
        """End all orders, each after the picture at hand, and wait for that."""
        self._closing.set()
        with self._alone:
            pass

    def translator(self, name: str) -> Translator:
        """The translator of a style; the last few stay loaded."""
        with self._loading:
            found = self._loaded.pop(name, None) or self._load(self.styles[name])
            self._loaded[name] = found
            while len(self._loaded) > _LOADED:
                del self._loaded[next(iter(self._loaded))]
            return found

    def _load(self, style: Style) -> Translator:
        options = self._options | {"direction": style.direction or None}
        loaded = load_translator(style.path or style.name, **options, sizes=_FEW_PICTURES)
        if loaded.info.in_units:
            raise UsageError(f"{style.name} is a model of values in units, which a page cannot show; use i2i translate")
        return loaded

    def preview(self, upload: Upload) -> Image.Image:
        """An upload as the page shows it. Raises `ImageError`."""
        images.probe(upload.path, self._limits)
        return preview(upload.path)

    def example(self, name: str, folder: Path) -> tuple[Path, Path]:
        """The bundled photograph and its translation by a style; made once, in `folder`, while no order waits."""
        if made := self.examples.get(name):
            return made
        self._idle.wait()
        with self._alone:
            if name not in self.examples and not self._closing.is_set():
                before, after = folder / EXAMPLE.name, folder / f"example-{len(self.examples)}.jpg"
                shutil.copyfile(EXAMPLE, before)
                images.write(after, self.translator(name).translate(images.read(EXAMPLE)))
                self.examples[name] = before, after
            return self.examples[name]

    @contextlib.contextmanager
    def _ordered(self) -> Iterator[None]:
        """While entered, no example is begun."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def translate(
        self, order: Order, folder: Path, progress: Callable[[int, int, str], object], stop: Callable[[], bool]
    ) -> Outcome:
        """Fills an order in the empty `folder`; ends after the picture at hand once `stop()` is true or time is up.

        `progress` is called with the number of pictures finished, their total, and the name of the last.
        A picture that cannot be translated is a row of the report, and a style that does not take the options. Raises
        `ImageError` for a mask that cannot be read, and `I2IError` for a style that cannot be used.
        """
        end = time.monotonic() + self.bounds.seconds
        kept, rows = self._received(order, folder / "in")
        mask = self._mask(order, folder)
        results: list[Result] = []
        total = len(kept) * len(order.versions)

        def why() -> str:
            """The reason to end now; empty if there is none."""
            if stop() or self._closing.is_set():
                return "stopped"
            if used(folder / "out") >= self.bounds.result_bytes:
                return f"all results have {self.bounds.result_bytes / 1e6:.0f} MB, the most of one request"
            return f"the time of {self.bounds.seconds:.0f} s was up" if time.monotonic() > end else ""

        for number, name in enumerate(order.versions if kept else ()):

            def show(done: int, _: int, path: Path, base: int = number * len(kept)) -> None:
                progress(base + done, total, kept[int(path.parent.name)])

            try:
                with self._ordered(), self._alone:
                    records = self._by_style(name, order, mask, folder, show, lambda: bool(why()))
            except UsageError as error:  # the options do not fit this style
                rows.append(Row("", name, "failed", _without_folders(str(error), folder)))
                continue
            for record in records:
                picture = kept[int(record.source.parent.name)]
                note = _without_folders(record.note or record.reason, folder)
                is_left = record.status == "left"
                rows.append(Row(picture, name, *(("not done", why()) if is_left else (record.status, note))))
                if record.status == "done":
                    results.append(_shown(name, record, folder))
        results.sort(key=lambda result: result.file.parent.name)
        return Outcome(results, rows, _archive(results, len(order.versions), folder / "translated.zip"))

    def _received(self, order: Order, folder: Path) -> tuple[list[str], list[Row]]:
        """The names of uploads that may be translated, each in a folder with its number; and rows of the others."""
        kept: list[str] = []
        refused: list[Row] = []
        for upload in order.uploads:
            name = file_name(upload.name)
            try:
                if Path(name).suffix.lower() not in (*SUFFIXES, *UNREAD):
                    raise ImageError("no picture, by its name")
                width, height = images.probe(upload.path, self._limits)
                if order.size is not None:
                    self._limits.check_size(*resized(height, width, order.size)[::-1])
            except ImageError as error:
                refused.append(Row(name, "", "refused", str(error).replace(str(upload.path), name)))
                continue
            _link(upload.path, folder / f"{len(kept):04}" / name)
            upload.path.touch()  # a file in use does not count as old
            kept.append(name)
        return kept, refused

    def _mask(self, order: Order, folder: Path) -> Path | None:
        """The mask of an order as `translate_folder` takes it: a file for all, a folder with one for each, or None."""
        if order.mask is not None:
            images.probe(order.mask.path, self._limits)
            path = folder / "mask" / file_name(order.mask.name)
            _link(order.mask.path, path)
            return path
        if not order.drawn:
            return None
        drawn = images.decode(order.drawn, self._limits).alpha
        if drawn is None or not drawn.any():
            return None
        for path in (folder / "in").glob("*/*"):
            place = folder / "mask" / path.parent.name / f"{path.stem}.png"
            place.parent.mkdir(parents=True)
            fitted = Image.fromarray(drawn).resize(images.probe(path), Image.Resampling.BILINEAR)
            images.write(place, images.Picture(np.asarray(fitted)[..., None]))
        return folder / "mask"

    def _by_style(
        self,
        name: str,
        order: Order,
        mask: Path | None,
        folder: Path,
        show: Callable[[int, int, Path], object],
        stop: Callable[[], bool],
    ) -> Sequence[Record]:
        weights = order.versions[name]
        translator = mixed({style: self.translator(style) for style in weights}, weights)
        out = folder / "out" / str(list(order.versions).index(name))
        makes_labels = bool(translator.coding.outputs)  # whose colours a lossy format would change
        lossy = any(WRITTEN.get(path.suffix.lower()) in LOSSY for path in (folder / "in").glob("*/*"))
        report = translate_folder(
            folder / "in",
            out,
            translator,
            progress=show,
            stop=stop,
            size=order.size,
            strength=order.strength,
            keep=order.keep,
            mask=mask,
            format="png" if makes_labels and lossy else None,
        )
        return report.records


def used(folder: Path) -> int:
    """The bytes of all files in `folder`, each counted once, whatever its names."""
    return sum({(status.st_dev, status.st_ino): status.st_size for _, status in files_in(folder)}.values())


def files_in(folder: Path, pattern: str = "**/*") -> Iterator[tuple[Path, os.stat_result]]:
    """The files of `folder` and their status; those that vanish meanwhile are left out."""
    for path in list(folder.glob(pattern)):
        with contextlib.suppress(OSError):  # others come and go
            if not path.is_dir():
                yield path, path.lstat()


def _link(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, path)
    except OSError:  # a disk without hard links, such as exFAT
        shutil.copyfile(file, path)


def file_name(given: str) -> str:
    """A name for a file that a visitor calls so: no folders, no control characters, not too long, not hidden."""
    name = printable(re.split(r"[/\\]", given)[-1]).replace("\\", "_").strip().lstrip(".")
    suffix = Path(name).suffix
    stem = os.fsencode(name.removesuffix(suffix))[:_MAX_NAME_BYTES].decode(errors="ignore")
    found = f"{stem or 'picture'}{suffix if len(suffix) <= 5 else ''}"
    return "_" + re.sub(r'[<>:"|?*]', "_", found) if WINDOWS and is_reserved(found) else found


def _without_folders(text: str, folder: Path) -> str:
    """A text in which the files of an order, that lie in `folder`, have their names alone."""
    return re.sub(rf"{re.escape(str(folder))}/((in|out|mask)/)?(\d+/)*", "", text)


def _shown(style: str, record: Record, folder: Path) -> Result:
    place = folder / "shown" / record.target.parent.parent.name
    place.mkdir(parents=True, exist_ok=True)
    after = preview(record.target)
    before = preview(record.source).resize(after.size)
    suffix = "png" if "A" in after.mode else "jpg"
    paths = [place / f"{record.target.parent.name}-{side}.{suffix}" for side in ("before", "after")]
    for path, image in zip(paths, (before, after), strict=True):
        image.convert(after.mode).save(path, quality=90, icc_profile=image.info.get("icc_profile"))
    return Result(record.target.name, style, record.target, *paths)


def preview(path: Path) -> Image.Image:
    """A picture as a browser shows it: 8 bits, with its profile, at most `PREVIEW` pixels on its longer side."""
    picture = images.read(path)
    shown = picture.pixels if picture.pixels.shape[2] in (1, 3) else picture.pixels[..., :1]  # one channel of data
    pixels = images.with_depth(shown, np.uint8)
    alpha = picture.alpha if picture.alpha is None else images.with_depth(picture.alpha, np.uint8)
    image = as_pil(replace(picture, pixels=pixels, alpha=alpha, extra=None))
    image.thumbnail((PREVIEW, PREVIEW))
    return image


def _archive(results: Sequence[Result], styles: int, path: Path) -> Path | None:
    """A zip of all results, those of several styles in a folder each; files of one name have their number before it."""
    if not results:
        return None
    counts = Counter((result.style, result.name.casefold()) for result in results)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for result in results:
            alike = counts[result.style, result.name.casefold()] > 1
            name = f"{int(result.file.parent.name) + 1:04}_{result.name}" if alike else result.name
            archive.write(result.file, f"{file_name(result.style)}/{name}" if styles > 1 else name)
    return path
