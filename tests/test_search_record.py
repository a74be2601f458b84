"""A table of learning curves goes on where its recording was killed: what was trained is not trained again.

python -m pytest tests/test_search_record.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

RECORD = """
from pathlib import Path
from benchmarks import search_table
if __name__ == "__main__":
    search_table.FOLDER = Path("tables")
    search_table.record(["digits"], 3, Path("results"), workers=1)
"""


@pytest.mark.slow
def test_a_recording_that_was_killed_goes_on(tmp_path: Path) -> None:
    (tmp_path / "record.py").write_text(RECORD)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "record.py"]
    results = tmp_path / "results/digits"
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) as killed:
        while not (kept := sorted(results.glob("???-?.json"))):
            assert killed.poll() is None
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not (tmp_path / "tables").exists()
    before = {file: file.stat().st_mtime_ns for file in kept}
    said = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == f"digits: {3 - len(kept)} of {3 - len(kept)} runs"
    assert {file: file.stat().st_mtime_ns for file in kept} == before
    curves = pd.read_parquet(tmp_path / "tables/digits.curves.parquet")
    assert curves.groupby("configuration").size().tolist() == [27, 27, 27]
    assert len(pd.read_parquet(tmp_path / "tables/digits.configurations.parquet")) == 3
