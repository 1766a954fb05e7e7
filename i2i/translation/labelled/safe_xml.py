"""Annotation files in XML, read without trust: no document type, no entities, bounded size and depth.

What is looked for is found with its place in the bytes, so that a name can be changed and the rest stays as it is.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from i2i.errors import InputError

_MAX_DEPTH = 32
_MAX_ELEMENTS = 250_000
_MAX_NAME = 256
"""Each element has the path to it, so long names would add up."""
_TAG = re.compile(rb"""<[^\s>/]+(?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*(/?)>""")


@dataclass
class Element:
    """An element at `path` (`annotation/filename`): its text, and where its inside lies in the bytes.

    `start` is -1 for `<name/>`, which has no inside.
    """

    path: str
    start: int
    text: str = ""
    end: int = 0


@dataclass
class Document:
    data: bytes
    encoding: str = "utf-8"
    elements: list[Element] = field(default_factory=list)

    def texts(self, path: str) -> list[str]:
        return [element.text.strip() for element in self.elements if element.path == path]

    def replaced(self, texts: dict[str, str]) -> bytes:
        """The bytes with other texts in the elements at these paths."""
        inside = {path: escape(text).encode(self.encoding, "xmlcharrefreplace") for path, text in texts.items()}
        pieces, position = [], 0
        for element in sorted(self.elements, key=lambda found: found.start):
            if element.path in inside and element.start >= position:
                pieces += [self.data[position : element.start], inside[element.path]]
                position = element.end
        return b"".join((*pieces, self.data[position:]))


def parse(data: bytes) -> Document:
    """Raises `InputError`, without a name, for anything but plain XML in UTF-8 or an 8-bit encoding."""
    if b"\0" in data[:4]:
        raise InputError("expected XML in UTF-8")
    reader = _Reader(data)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InputError(f"not valid XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or of several bytes (GBK)
        raise InputError(f"not valid XML: {error}") from None
    return reader.document


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.document = Document(data)
        self._open: list[tuple[Element, list[str]]] = []
        """Texts in pieces: one for each element between them, which a sum would copy each time."""
        self._count = 0
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = _refuse  # before an entity could be declared
        parser.EntityDeclHandler = _refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.document.encoding = encoding or "utf-8"

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise InputError(f"deeper than {_MAX_DEPTH} levels")
        self._count += 1
        if self._count > _MAX_ELEMENTS or len(name) > _MAX_NAME:
            raise InputError(f"more than {_MAX_ELEMENTS:,} elements, or a name of more than {_MAX_NAME} characters")
        path = f"{self._open[-1][0].path}/{name}" if self._open else name
        place = self.parser.CurrentByteIndex
        tag = _TAG.match(self.document.data, place)
        inside = -1 if tag is None or tag[1] else tag.end()
        self._open.append((Element(path, inside), []))

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1][1].append(text)

    def _end(self, name: str) -> None:
        element, texts = self._open.pop()
        element.text = "".join(texts)
        element.end = self.parser.CurrentByteIndex
        self.document.elements.append(element)


def _refuse(*_: object) -> None:
    raise InputError("a document type (<!DOCTYPE>, <!ENTITY>) is not accepted; remove it")


def file_name(path: str) -> str:
    """The last part of a path of any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def with_name(path: str, name: str) -> str:
    """`path` with its last part replaced, its folders as they are written there."""
    return path[: len(path) - len(file_name(path))] + name


def can_hold(path: Path) -> bool:
    """Whether a name can stand in XML: valid Unicode without control characters."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return path.name.isprintable()
