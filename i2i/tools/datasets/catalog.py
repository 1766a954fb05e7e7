"""The public data sets of CycleGAN, pix2pix and CUT by name: the address of each, and its known facts.

Sizes in bytes, SHA-256 and numbers of pictures of the CycleGAN sets are those that TensorFlow Datasets records
(`url_checksums/cycle_gan.txt` and its catalogue); sizes of `pix2pix/facades` and `pix2pix/maps` are what their
server announces. Facts that no public source states are None here, and are shown as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from i2i.config import nearest
from i2i.errors import UsageError

Layout = Literal["side by side", "unpaired", "test only"]

_CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"
_CYCLEGAN_EARLIER = "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/{}.zip"
_PIX2PIX = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{}.tar.gz"
_PIX2PIX_EARLIER = "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets/{}.tar.gz"

_CYCLEGAN_PAPER = (
    "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, "
    "ICCV 2017, arXiv:1703.10593"
)
_PIX2PIX_PAPER = (
    "Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks, "
    "CVPR 2017, arXiv:1611.07004"
)
_CUT_PAPER = (
    "Park, Efros, Zhang, Zhu: Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020, arXiv:2007.15651"
)
_FACADES_PAPER = "Tyleček, Šára: Spatial Pattern Templates for Recognition of Objects with Regular Structure, GCPR 2013"
_CITYSCAPES_PAPER = "Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016"
_TRANSIENT_PAPER = (
    "Laffont et al.: Transient Attributes for High-Level Understanding and Editing of Outdoor Scenes, SIGGRAPH 2014"
)

_PAINTINGS = "none stated; paintings from WikiArt, photographs from Flickr, the rights are their owners'"
_IMAGENET = "none stated; pictures from ImageNet, the rights are their owners'"
_FLICKR = "none stated; photographs from Flickr, the rights are their owners'"
_GOOGLE = "none stated; pictures scraped from Google Maps, the rights are their owners'"
_FACADES = "none stated; from the CMP Facade Database, whose authors ask to be cited"

_CITYSCAPES = (
    "The licence of Cityscapes forbids to pass it on, so it is not fetched. Register at "
    "https://www.cityscapes-dataset.com, get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, put the "
    "photographs into A/train and A/val and the files *_gtFine_color.png into B/train and B/val under the names of "
    "their photographs, then `prepare_dataset.py combine A B --out datasets/cityscapes`."
)


@dataclass(frozen=True)
class PublicSet:
    """One public data set.

    `urls`: the archive and places where it was earlier, tried in order; empty for a set that is not fetched,
    of which `instead` says how to get it. `size`: bytes of the archive; `about`: in words where `size` is
    unknown. `counts`: pictures by folder.
    """

    name: str
    layout: Layout
    domains: tuple[str, ...]
    paper: str
    licence: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    about: str = ""
    instead: str = ""

    @property
    def folder(self) -> str:
        """The name without its family."""
        return self.name.partition("/")[2]

    @property
    def shown_size(self) -> str:
        return f"{self.size / 1e6:,.1f} MB" if self.size else self.about or "of unknown size"


_RIGHTS = {"paintings": _PAINTINGS, "imagenet": _IMAGENET, "flickr": _FLICKR, "google": _GOOGLE, "facades": _FACADES}
# name, pictures of trainA, trainB, testA and testB, bytes, rights, domains; SHA-256
_CYCLEGAN_SETS = """
apple2orange 995 1019 266 248 78456409 imagenet apples / oranges
845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8
summer2winter_yosemite 1231 962 309 238 132640856 flickr Yosemite in summer / in winter
167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9
horse2zebra 1067 1334 120 140 116867962 imagenet horses / zebras
a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1
monet2photo 1072 6287 121 751 305231073 paintings paintings by Monet / landscape photographs
88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04
cezanne2photo 525 6287 58 751 279885071 paintings paintings by Cézanne / landscape photographs
3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff
ukiyoe2photo 562 6287 263 751 292946532 paintings ukiyo-e prints / landscape photographs
02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08
vangogh2photo 400 6287 400 751 306590349 paintings paintings by van Gogh / landscape photographs
362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff
maps 1096 1096 1098 1098 1476754427 google aerial photographs / maps
639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e
facades 400 400 106 106 35135868 facades photographs of facades / label maps
9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0
iphone2dslr_flower 1812 3325 569 480 339964458 flickr flowers taken with an iPhone / with a DSLR
8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113
"""


def _cyclegan(facts: str, sha256: str) -> PublicSet:
    """The set of two lines of the table."""
    name, *numbers, rights, domains = facts.split(maxsplit=7)
    *counts, size = map(int, numbers)
    first, second = domains.split(" / ")
    return PublicSet(
        name=f"cyclegan/{name}",
        layout="unpaired",
        domains=(first, second),
        paper=_CYCLEGAN_PAPER,
        licence=_RIGHTS[rights],
        urls=(_CYCLEGAN.format(name), _CYCLEGAN_EARLIER.format(name)),
        size=size,
        sha256=sha256,
        counts=dict(zip(("trainA", "trainB", "testA", "testB"), counts, strict=True)),
    )


def _pix2pix(
    name: str,
    domains: tuple[str, str],
    licence: str,
    paper: str,
    counts: Mapping[str, int],
    size: int | None = None,
    about: str = "",
) -> PublicSet:
    return PublicSet(
        name=f"pix2pix/{name}",
        layout="side by side",
        domains=domains,
        paper=f"{_PIX2PIX_PAPER}; {paper}" if paper else _PIX2PIX_PAPER,
        licence=licence,
        urls=(_PIX2PIX.format(name), _PIX2PIX_EARLIER.format(name)),
        size=size,
        counts=counts,
        about=about,
    )


_LINES = _CYCLEGAN_SETS.split("\n")[1:-1]
SETS: tuple[PublicSet, ...] = (
    *map(_cyclegan, _LINES[::2], _LINES[1::2]),
    PublicSet(
        name="cyclegan/ae_photos",
        layout="test only",
        domains=("photographs to try styles on",),
        paper=_CYCLEGAN_PAPER,
        licence="none stated; photographs by Alexei Efros",
        urls=(_CYCLEGAN.format("ae_photos"), _CYCLEGAN_EARLIER.format("ae_photos")),
        about="about 10 MiB",
    ),
    PublicSet(
        name="cyclegan/cityscapes",
        layout="unpaired",
        domains=("street scenes", "label maps"),
        paper=_CYCLEGAN_PAPER,
        licence="non-commercial, not to be passed on (Cityscapes)",
        instead=_CITYSCAPES,
    ),
    PublicSet(
        name="cut/grumpifycat",
        layout="unpaired",
        domains=("Russian Blue cats", "Grumpy Cat"),
        paper=_CUT_PAPER,
        licence="none stated; Russian Blue cats from the Oxford-IIIT Pet data set",
        urls=(_CYCLEGAN.format("grumpifycat"), _CYCLEGAN_EARLIER.format("grumpifycat")),
        counts={"trainA": 88, "trainB": 214},
        about="about 19 MiB",
    ),
    _pix2pix(
        "facades",
        ("photographs of facades", "label maps"),
        _FACADES,
        _FACADES_PAPER,
        {"train": 400, "val": 100, "test": 106},
        size=30_168_306,
    ),
    _pix2pix(
        "maps",
        ("aerial photographs", "maps"),
        _GOOGLE,
        "",
        {"train": 1_096},
        size=250_242_400,
    ),
    _pix2pix(
        "edges2shoes",
        ("edges", "photographs of shoes"),
        "none stated; from UT Zappos50K",
        "Yu, Grauman: Fine-Grained Visual Comparisons with Local Learning, CVPR 2014",
        {},
        about="about 2.0 GiB, 50,000 pairs",
    ),
    _pix2pix(
        "edges2handbags",
        ("edges", "photographs of handbags"),
        "none stated; from Amazon, collected for iGAN",
        "Zhu et al.: Generative Visual Manipulation on the Natural Image Manifold, ECCV 2016",
        {},
        about="about 8.0 GiB, 137,000 pairs",
    ),
    _pix2pix(
        "night2day",
        ("landscapes at night", "at day"),
        "none stated; from the Transient Attributes data set",
        _TRANSIENT_PAPER,
        {"train": 17_823},
        about="about 1.9 GiB",
    ),
    PublicSet(
        name="pix2pix/cityscapes",
        layout="side by side",
        domains=("street scenes", "label maps"),
        paper=f"{_PIX2PIX_PAPER}; {_CITYSCAPES_PAPER}",
        licence="non-commercial, not to be passed on (Cityscapes)",
        instead=_CITYSCAPES,
    ),
)


def find_set(name: str) -> PublicSet:
    """The set that a name means, with its family (`pix2pix/maps`) or, where only one has it, without.

    Raises `UsageError` for an unknown name and for one that two families have.
    """
    found = [entry for entry in SETS if name in (entry.name, entry.folder)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(f"{entry.name} ({entry.layout})" for entry in found)
        raise UsageError(f"{name}: there are two of this name; say {choices}")
    known = sorted({entry.name for entry in SETS} | {entry.folder for entry in SETS})
    raise UsageError(f"{name}: no public data set of this name.{nearest(name, known)} `list` shows those there are.")
