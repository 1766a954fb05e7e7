"""YAML as people write options: mappings, lists and words; each mistake named with its line.

A file is read event by event, so that limits hold before anything is built. Only words that cannot mean anything else
are numbers: `010` (8 in YAML 1.1), `4:46` (286) and `1_0` stay words, like `off` and `2026-01-01`.

Options stand in groups, which are the headings of `--help-all` too. Those that stand in no group come first, and at the
top of a file.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from i2i.errors import UsageError

FIRST = "what and where"
"""The heading of all options that stand in no group."""

_GROUPS = {
    "networks": """
        generator discriminator ngf ndf norm dropout padding input_share bias init_type init_gain features norm_stats
        paint_size latent_size conditional embedding_width num_patches
    """,
    "losses": """
        gan_mode lambda_L1 lambda_cycle_A lambda_cycle_B lambda_identity lambda_paired lambda_gan lambda_GAN
        lambda_NCE_A lambda_NCE_B lambda_features lambda_FM lambda_VGG lambda_CE lambda_structure lambda_content
        lambda_spots lambda_stability lambda_grid nce_layers negatives temperature flip_equivariance vgg
    """,
    "optimisation": """
        n_epochs n_epochs_decay max_steps batch_size micro_batches lr lr_discriminator beta1 beta2 lr_policy
        lr_decay_epochs patience ema clip_grad seed seeds
    """,
    "preprocessing": """
        preprocess load_size crop_size random_zoom flip augment channels_a channels_b classes_a classes_b range_a
        range_b instance_edges check pairs on_bad size count walk truncation columns copies fraction copies_only val
        test format quality alpha half smooth
    """,
    "stability": """
        r1_gamma r2_gamma lambda_gp label_smoothing instance_noise instance_noise_steps diffaugment ada_target
        ada_images pool_size max_bad_steps
    """,
    "speed and memory": """
        device precision runtime compile workers cache low_memory deterministic large measure_steps
        measure_seconds max_megabytes max_megapixels time_limit
    """,
    "measuring": """
        metrics validate_every validate_images best_metric best_floor stop_when stop_patience inception lpips palette
        is_splits
    """,
    "saving": """
        save_every save_minutes keep_last keep_every sample_every samples log_every
    """,
}
GROUPS = {title: names.split() for title, names in _GROUPS.items()}
"""Heading → its options, in order."""

MAX_BYTES = 1 << 20
MAX_SLOW_BYTES = 1 << 17
"""Where libyaml cannot be used: Python takes up to 5 µs a byte."""
MAX_DEPTH = 16
MAX_EVENTS = 100_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,99})\.[0-9]{0,100}|\.[0-9]{1,100})(?:e[-+]?[0-9]{1,10})?|[-+]?\.inf|\.nan", re.I
)
_TOO_LONG = re.compile(r"[-+]?[0-9_]{101,}|0x[0-9a-fA-F]{17,}")
_NULL = ("", "~", "null", "Null", "NULL")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def key(title: str) -> str:
    """A heading as a key of YAML: `speed_and_memory`."""
    return title.replace(" ", "_")


KEYS = frozenset(map(key, GROUPS))


def grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nests options by name: each option of a group comes under the group's key."""
    nested = {key(title): {name: values[name] for name in names if name in values} for title, names in GROUPS.items()}
    placed = {name for group in nested.values() for name in group}
    return {name: value for name, value in values.items() if name not in placed} | {
        title: group for title, group in nested.items() if group
    }


class Values(dict[str, Any]):
    """The mapping of a file; `lines` says in which line each key stands, from 1."""

    def __init__(self, values: dict[str, Any], lines: dict[str, int]) -> None:
        super().__init__(values)
        self.lines = lines


def read_yaml(path: Path, headings: Collection[str] = ()) -> Values:
    """A YAML file's mapping, `-` in its keys taken for `_`. Keys below one of `headings` are read as if at the top,
    and a heading with nothing below adds nothing.

    At most 1 MiB, 16 levels deep, no aliases, no tags, no key twice. Raises `UsageError` naming the line.
    """
    found = _read(path, headings, lists=False)
    assert isinstance(found, Values)
    return found


def read_yaml_or_list(path: Path) -> Values | list[Any]:
    """As `read_yaml`, also of a file that holds a list."""
    return _read(path, (), lists=True)


def _in_checkout(path: Path) -> str:
    """`. Did you mean /i2i/configs/x.yaml?` for a path that is not there and has the name of one of ours."""
    ours = Path(__file__).parents[1] / "configs" / path.name
    return f". Did you mean {ours}?" if ours.is_file() and not os.path.lexists(path) else ""


def _read(path: Path, headings: Collection[str], lists: bool) -> Values | list[Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read this configuration: {error.strerror}{_in_checkout(path)}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: a configuration has at most {MAX_BYTES} bytes")
    try:
        return _Reader(path, data).document(headings, lists)
    except (yaml.YAMLError, UnicodeError) as error:
        first = str(error).partition("\n")[0]
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or first}") from None


class _Reader:
    """Builds values from the events of a file."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.events = path, self._checked(data)

    def _checked(self, data: bytes) -> Iterator[yaml.Event]:
        """The events, as far as they keep to the limits."""
        # libyaml refuses the escapes by which names that are no UTF-8 are written
        is_fast = yaml.__with_libyaml__ and not _SURROGATE.search(data)
        if not is_fast and len(data) > MAX_SLOW_BYTES:
            raise UsageError(f"{self.path}: a configuration read without libyaml has at most {MAX_SLOW_BYTES} bytes")
        depth = 0
        for number, event in enumerate(yaml.parse(data, Loader=yaml.CSafeLoader if is_fast else yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if number >= MAX_EVENTS:
                raise self._refused(event, f"more than {MAX_EVENTS} keys, values and brackets")
            if isinstance(event, yaml.AliasEvent):
                raise self._refused(event, f"aliases (*{event.anchor}) are not accepted")
            if (tag := getattr(event, "tag", None)) is not None:
                raise self._refused(event, f"not valid YAML for options: a tag ({tag[:100]})")
            if depth > MAX_DEPTH:
                raise self._refused(event, f"deeper than {MAX_DEPTH} levels")
            yield event

    def _refused(self, event: yaml.Event, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {_line(event)}: {what}")

    def document(self, headings: Collection[str], lists: bool) -> Values | list[Any]:
        """The options of the one document, or its list if `lists` are wanted; none if there is no document."""
        next(self.events)  # the stream begins
        found: Values | list[Any] = Values({}, {})
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return found
        first = next(self.events)
        if isinstance(first, yaml.MappingStartEvent) and isinstance(found, Values):
            self._add_options(found, headings)
        elif isinstance(first, yaml.SequenceStartEvent) and lists:
            found = self._value(first)
        elif not isinstance(first, yaml.ScalarEvent) or self._value(first) is not None:
            raise UsageError(f"{self.path}: expected `option: value` lines")
        next(self.events)  # the document ends
        if not isinstance(end := next(self.events), yaml.StreamEndEvent):
            raise self._refused(end, "a second document")
        return found

    def _add_options(self, found: Values, headings: Collection[str]) -> None:
        """Adds the options of a mapping, and those under its headings."""
        for event, key, first in self._entries():
            name = key.replace("-", "_") if isinstance(key, str) else ""
            if not name:
                raise self._refused(event, "expected `option: value` lines")
            if name in headings and isinstance(first, yaml.MappingStartEvent):
                self._add_options(found, ())
                continue
            value = self._value(first)
            if name in headings and value is None:
                continue
            if name in found:
                raise self._refused(event, f"{key} is given twice, first in line {found.lines[name]}; keep one of them")
            found[name], found.lines[name] = value, _line(event)

    def _entries(self) -> Iterator[tuple[yaml.Event, Any, yaml.Event]]:
        """The keys of a mapping, each as an event and as a value, with the first event of what follows it."""
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refused(event, "a key that is no word")
            yield event, self._value(event), next(self.events)

    def _value(self, event: yaml.Event) -> Any:
        if isinstance(event, yaml.SequenceStartEvent):
            values = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                values.append(self._value(event))
            return values
        if isinstance(event, yaml.MappingStartEvent):
            mapping: dict[Any, Any] = {}
            for event, key, first in self._entries():
                if key in mapping:
                    raise self._refused(event, f"{key!r} is given twice; keep one of them")
                mapping[key] = self._value(first)
            return mapping
        assert isinstance(event, yaml.ScalarEvent)
        if event.implicit[0] and _TOO_LONG.fullmatch(event.value):
            raise self._refused(event, f"not valid YAML for options: a number of {len(event.value)} digits")
        return _resolved(event.value) if event.implicit[0] else event.value


def _line(event: yaml.Event) -> int:
    return 0 if event.start_mark is None else event.start_mark.line + 1


def _resolved(word: str) -> Any:
    """The value of a word without quotes: none, a number, or the word. Whether `off` is false, its option decides."""
    if word in _NULL:
        return None
    if _INTEGER.fullmatch(word):
        return int(word, 0)
    return float(re.sub(r"\.(?=[in])", "", word.lower())) if _FLOAT.fullmatch(word) else word
