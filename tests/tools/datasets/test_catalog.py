"""The public data sets: their facts are well formed, and names lead to them."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from i2i.errors import UsageError
from i2i.tools.datasets.catalog import SETS, find_set


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_facts_are_well_formed(entry):
    assert entry.layout and entry.domains and entry.paper and entry.licence and entry.shown_size
    assert bool(entry.urls) != bool(entry.instead)
    for url in entry.urls:
        parts = urlsplit(url)
        assert parts.scheme == "https" and parts.hostname.endswith("berkeley.edu") and not parts.query
        assert parts.path.endswith(f"/{entry.folder}" + (".tar.gz" if entry.name.startswith("pix2pix/") else ".zip"))
    assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16) and entry.size)
    assert all(count > 0 for count in entry.counts.values())


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_the_table_in_the_documentation(entry):
    table = (Path(__file__).parents[3] / "datasets" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in table.splitlines() if f"`{entry.name}`" in line and line.startswith("|"))
    if entry.urls:
        assert entry.layout in line and entry.shown_size.split(" GiB")[0] in line
        assert line.endswith("| known |" if entry.sha256 else "| unknown |")
        assert all(f"{count:,}" in line for count in entry.counts.values())


def test_what_is_there():
    known = {entry.name for entry in SETS}
    assert len(known) == len(SETS) == 19
    cyclegan = (
        "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps"
    )
    cyclegan += " cityscapes facades iphone2dslr_flower ae_photos"
    assert {f"cyclegan/{name}" for name in cyclegan.split()} <= known
    pix2pix = "facades cityscapes maps edges2shoes edges2handbags night2day"
    assert {f"pix2pix/{name}" for name in pix2pix.split()} <= known
    assert len({entry.sha256 for entry in SETS if entry.sha256}) == 10


def test_names():
    assert find_set("horse2zebra") is find_set("cyclegan/horse2zebra")
    with pytest.raises(UsageError, match=r"maps: there are two .* cyclegan/maps \(unpaired\) or pix2pix/maps"):
        find_set("maps")
    with pytest.raises(UsageError, match="Did you mean 'horse2zebra'"):
        find_set("horse2zebras")
