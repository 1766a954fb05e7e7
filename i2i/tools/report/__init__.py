"""The parts of pages that are one file: the report of a run, read from its folder, and pictures to compare."""
