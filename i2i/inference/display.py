"""How a translator describes itself: in a line, and as a table in a notebook."""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from i2i.inference.translator import Translator


def line(translator: "Translator") -> str:
    """Returns the `repr`: what it translates, by which network, and how that runs."""
    name = f" {translator.style}" if translator.style else ""
    facts = _facts(translator)
    return f"<Translator{name}: {facts['translates']}; {facts['network']}; {facts['runs in']}>"


def table(translator: "Translator") -> str:
    """Returns the same facts and the card of the model as HTML."""
    facts = {"style": translator.style, **_facts(translator)}
    facts["paint size"] = f"{translator.paint_size} pixels" if translator.paint_size else ""
    facts["licence"] = translator.info.licence
    rows = "".join(f"<tr><th>{name}</th><td>{escape(fact)}</td></tr>" for name, fact in facts.items() if fact)
    card = "".join(f"<li>{escape(text)}</li>" for text in translator.info.card)
    return f"<table>{rows}</table>" + (f"<ul>{card}</ul>" if card else "")


def _facts(translator: "Translator") -> dict[str, str]:
    info, size = translator.info, translator.weights_bytes
    network = info.config.get("module") or info.network
    return {
        "translates": f"{_side(info.input_domain, info.input_range)} → {_side(info.output_domain, info.output_range)} "
        f"({info.direction})",
        "network": f"{network}, {size / 1e6:.1f} MB",
        "runs in": f"{translator.runtime} {translator.precision} on {translator.device}",
    }


def _side(domain: str, limits: tuple[float, float] | None) -> str:
    return domain if limits is None else f"{domain}, {limits[0]:g} to {limits[1]:g}"
