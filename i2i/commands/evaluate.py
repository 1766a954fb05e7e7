"""Measure a run, a model, or pictures: how near they come to what they should be, with the protocol beside it.

i2i evaluate runs/facades
i2i evaluate monet datasets/monet2photo --direction b2a
i2i evaluate out/ expected/ --report evaluation.json
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from i2i.commands.options import POSITIONAL
from i2i.config import narrowed
from i2i.errors import OutputError, UsageError
from i2i.evaluation.models import find_inputs
from i2i.evaluation.options import EvaluationOptions
from i2i.terminal import say_plain


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    inputs: Annotated[tuple[str, ...], POSITIONAL] = ()
    """A run folder; a model and pictures to translate with it; or two folders: results, and the pictures that they are
    compared with."""
    report: Path | None = None
    """Write the numbers and their protocol to this JSON file; an earlier evaluation there is replaced. Default: for a
    run, evaluation.json in its folder, where i2i report finds it; else none."""
    json: bool = False
    """Print JSON instead of the table."""


def main(options: Options) -> None:
    if not options.inputs:
        raise UsageError("expected: i2i evaluate RUN, or MODEL PICTURES, or RESULTS EXPECTED (see --help)")
    report = options.report
    if report is not None and (report.suffix.lower() not in ("", ".json") or report.is_dir()):
        raise UsageError(f"--report {report}: expected the name of a JSON file")
    if report is not None and not report.parent.is_dir():
        raise OutputError(f"{report}: cannot be written: no such folder")
    chosen = narrowed(options, EvaluationOptions)
    found = find_inputs(options.inputs, chosen)
    from i2i.evaluation.evaluate import measure  # here, so that mistakes do not wait for torch
    from i2i.evaluation.result import REPORT_NAME, check_replaceable, table, write

    if report is not None:
        check_replaceable(report)
    command = shlex.join(sys.argv)
    evaluation = measure(found, chosen, say_plain)
    if report is not None:
        write(evaluation, report, command)
    print(evaluation.to_json(command) if options.json else table(evaluation, command), end="" if options.json else "\n")
    if report is None and evaluation.rows and found.run:
        path = found.run / REPORT_NAME
        other = path.with_stem(f"{path.stem}-NAME")
        earlier = f", in the place of the earlier ones; next time, --report {other} keeps both" if path.exists() else ""
        try:
            write(evaluation, path, command)
            say_plain(f"{path}: the numbers, for i2i report{earlier}")
        except (OutputError, UsageError) as error:  # the numbers are printed all the same
            say_plain(f"not kept for the report of the run: {error}")
