"""One training step against the plain one: the same weights, the same batch, in turn.

python benchmarks/train.py --algorithm cyclegan --json benchmarks/results/train-cyclegan.json

Every way is a process of its own (`train_child.py`), as a user's training is. The first step of each is not timed; its
losses are compared, as later ones drift apart by rounding alone. The limit is that of convolutions forward and
backward, the work that of the plain step.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import results
from ceiling import best, ceilings
from measuring import CPU, ROOT, SETTLE, WALL, Figures, in_turn, parse, parser, positive
from train_child import WAYS, Task


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=5)
    made.add_argument("--algorithm", choices=["cyclegan", "pix2pix"], default="cyclegan")
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=["fp32", "bf16"], help="beside plain")
    made.add_argument("--size", type=positive, default=256)
    made.add_argument("--batch-size", type=positive, default=1)
    made.add_argument("--options", type=json.loads, default={}, help='of the algorithm, such as {"ngf": 8}')
    options = parse(made, arguments)
    shared = {name: getattr(options, name) for name in ("algorithm", "size", "batch_size", "device", "options")}
    names = list(dict.fromkeys(["plain", *options.ways]))
    limits = partial(ceilings, sorted({precision(way) for way in names}), options.device, options.clock, backward=True)
    before = limits()
    with contextlib.ExitStack() as stack:
        ways = {way: stack.enter_context(Child(Task(way, **shared))) for way in names}
        taken = in_turn({way: child.step for way, child in ways.items()}, options.rounds)
        facts = {way: child.facts(ways["plain"]) for way, child in ways.items()}
    title = f"One step of {options.algorithm}, {options.size} px, batch {options.batch_size}, "
    title += f"{facts['plain']['gflop']:,.0f} GFLOP"
    table = results.table(title, options.clock, taken, facts)
    return results.finish("train", options, [table], best(before, limits()))


class Child:
    """A process that trains, and waits between its steps. Raises `RuntimeError` where it ends by itself."""

    def __init__(self, task: Task) -> None:
        self.way, self.peak = task.way, 0.0
        command = [sys.executable, "benchmarks/train_child.py", json.dumps(asdict(task))]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self.first = self._answer()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # it ends with its input

    def step(self) -> Figures:
        """One further step."""
        assert self.process.stdin is not None
        time.sleep(SETTLE)
        with contextlib.suppress(BrokenPipeError):  # the answer will be missing
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        found = self._answer()
        self.peak = found["resident_mb"]
        return {clock: found[clock] for clock in (WALL, CPU)}

    def facts(self, plain: "Child") -> dict[str, Any]:
        """The further fields of its row."""
        return {
            **self.first,
            "precision": precision(self.way),
            "gflop": plain.first["gflop"],
            "loss_difference": apart(self.first["first_losses"], plain.first["first_losses"]),
            "resident_mb": self.peak,
        }

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.way}: the process ended with {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def precision(way: str) -> str:
    """In what its networks compute."""
    return str(WAYS[way].get("precision", "fp32"))


def apart(losses: dict[str, float], expected: dict[str, float]) -> float:
    """The largest relative difference."""
    return max(abs(losses[key] - loss) / max(abs(loss), 1e-8) for key, loss in expected.items())


if __name__ == "__main__":
    main()
