"""Pickles that want to run code."""

from typing import Any


class Calls:
    """Unpickled, it calls `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments
