"""What the numbers of a run's validations depend on, as far as its configuration and the names of its metrics tell."""

from collections.abc import Iterable, Mapping
from typing import Any

from i2i.evaluation.options import EvaluationOptions

SEED = 0  # of every validation, whatever that of the run
_MEANS = {
    "fake": "outputs against their targets",
    "teacher": "outputs against those of the teacher",
    "cycle": "pictures restored from their translations, not of the translations",
    "identity": "pictures of the domain translated to, which should stay as they are, not of translations",
}
_OTHERS = "outputs against their targets or, without pairs, of reconstructions"
_OF_SWD = " (256x256 for swd, unless they are squares of one size)"
_SIZES = {
    "resize_and_crop": "stretched to {crop}x{crop}",
    "crop": "their middle of {crop}x{crop}",
    "scale_shortside": "shorter side scaled, middle of {crop}x{crop} cut out",
    "scale_width_and_crop": "width scaled, flat ones stretched, middle of {crop}x{crop} cut out",
    "scale_width": f"{{load}} wide{_OF_SWD}",
    "none": f"at their own size{_OF_SWD}",
    "toy": "drawn at {crop}x{crop}",
}
_MAX_NUMBER, _MAX_NAME = 1 << 53, 200


def validation_protocol(config: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, str]:
    """`pictures`: how many of which split, their size, the precision and the seed; `numbers`: what `metrics` are of.

    `config` is a run's `config.yaml`, empty if it cannot be read; `metrics` are names as in the log (`cycle_A/l1`).
    """
    return {"pictures": _pictures(config), "numbers": _numbers(list(metrics))}


def _pictures(config: Mapping[str, Any]) -> str:
    count, seed, precision = _number(config, "validate_images"), _number(config, "seed"), config.get("precision")
    parts = [f"{'number not known' if count is None else f'at most {count}'}, the first {_split(config.get('data'))}"]
    parts.append(_size(config) or "size not known")
    if config.get("classes_a") or config.get("classes_b"):
        parts.append("labels as a channel for each class")
    trained = f" (trained in {precision})" if precision in ("bf16", "fp16") else ""
    parts.append(f"measured in float32{trained}")
    parts.append(f"seed {SEED} for dropout" + ("" if seed is None else f", {seed} for toy pictures and noise"))
    return "; ".join(parts)


def _split(data: object) -> str:
    if data == "toy":
        return "of those that toy holds out"
    name = f" of {data[:_MAX_NAME]}".replace("\n", "\\n") if isinstance(data, str) else ""
    return f"of the val split{name}, or of test where there is no val"


def _size(config: Mapping[str, Any]) -> str:
    """Empty if it is not known."""
    name = "toy" if config.get("data") == "toy" else config.get("preprocess")
    sides = {part: _number(config, f"{part}_size") for part in ("crop", "load")}
    text = _SIZES.get(name, "") if isinstance(name, str) else ""
    return "" if any(f"{{{part}}}" in text and side is None for part, side in sides.items()) else text.format(**sides)


def _numbers(metrics: list[str]) -> str:
    of_pictures = [name.rpartition("/")[0] for name in metrics if not _is_of_sets(name) and not _is_of_content(name)]
    kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys(of_pictures):
        kinds.setdefault(_MEANS.get(name.partition("_")[0], _OTHERS), []).append(name)
    parts = ["luminance_ssim: means of outputs against their inputs"] if any(map(_is_of_content, metrics)) else []
    parts += [f"{', '.join(names)}: means of {kind}" for kind, names in kinds.items()]
    if any(map(_is_of_sets, metrics)):
        seeds = ", ".join(map(str, EvaluationOptions.seeds))
        parts.append(
            f"swd: what is made against the held-out pictures, as sets, one seed ({SEED}), so not to be compared with "
            f"that of an evaluation, which has seeds ({seeds}), sizes and a reference of its own"
        )
    return "; ".join(parts)


def _is_of_sets(name: str) -> bool:
    return name.rpartition("/")[2] == "swd"


def _is_of_content(name: str) -> bool:
    return name.rpartition("/")[2] == "luminance_ssim"


def _number(config: Mapping[str, Any], name: str) -> int | None:
    """The number, or None for anything else: the file may be anybody's."""
    value = config.get(name)
    return value if type(value) is int and 0 <= value < _MAX_NUMBER else None
