"""benchmarks/load.py: what it prints can be read, and says of the cache what is so."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_it_measures_every_way(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), "--count", "2", "--rounds", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "load.json")], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert json.loads((tmp_path / "load.json").read_text()) == result
    assert result["benchmark"] == "load" and result["machine"]["threads"] == 1 and result["drawn"] is True
    assert [(row["pictures"], row["target"]) for row in result["rows"]] == [("600x800", 20), ("256x256", 8)]
    for row in result["rows"]:
        assert row["same_with_cache"] is True and row["cache_bytes"] == 2 * (64 + 286 * 286 * 3)
        assert set(row["times_as_fast_as_plain"]) == {"decoding", "cache", "cache_one_worker"}
        assert all(value > 0 for value in row["microseconds"].values())
