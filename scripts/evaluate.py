"""Measure a run, a model, or pictures: how near they come to what they should be, with the protocol beside it.

python scripts/evaluate.py runs/facades
python scripts/evaluate.py monet datasets/monet2photo --direction b2a
python scripts/evaluate.py out/ expected/ --report evaluation.json
"""

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from i2i.cli import Positional, run, tell
from i2i.errors import OutputError, UsageError
from i2i.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    inputs: Positional[tuple[str, ...]] = ()
    """A run folder; a model and the pictures for it; or two folders: the pictures made, and those they should be."""
    report: Path | None = None
    """Write the numbers and their protocol to this JSON file, in the place of an earlier evaluation; an
    evaluation*.json in a run folder is shown by the report of that run."""
    json: bool = False
    """Print JSON instead of the table."""


def main(options: Options) -> None:
    if not options.inputs:
        raise UsageError("expected: evaluate.py RUN, or MODEL PICTURES, or MADE EXPECTED (see --help)")
    report = options.report
    if report is not None and (report.suffix.lower() not in ("", ".json") or report.is_dir()):
        raise UsageError(f"--report {report}: expected the name of a JSON file")
    if report is not None and not report.parent.is_dir():
        raise OutputError(f"{report}: cannot be written: no such folder")
    from i2i.evaluation.evaluate import evaluate  # here, so that --help does not wait for torch
    from i2i.evaluation.record import check_replaceable
    from i2i.evaluation.table import table
    from i2i.files import atomic_write

    if report is not None:
        replace = check_replaceable(report)
    chosen = EvaluationOptions(**{field.name: getattr(options, field.name) for field in fields(EvaluationOptions)})
    command = shlex.join(sys.argv)
    evaluation = evaluate(options.inputs, chosen, tell)
    text = evaluation.to_json(command)
    if report is not None:
        atomic_write(report, lambda file: file.write(text.encode("ascii")), replace=replace)
    print(text if options.json else table(evaluation, command), end="" if options.json else "\n")


if __name__ == "__main__":
    run(main, Options, "Measure a run, a model, or two folders of pictures.")
