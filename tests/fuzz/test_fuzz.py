"""A few hundred files changed at random are taken or refused; `make fuzz` tries as many as you like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def test_changed_files_are_taken_or_refused() -> None:
    done = subprocess.run([sys.executable, FUZZ, "480"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    taken = int(done.stdout.split("480 cases, ")[1].split()[0])
    assert 40 < taken < 400, "the changes are too small to refuse, or so large that nothing is read"


def test_what_goes_wrong_is_seen(tmp_path: Path) -> None:
    script = f"""
import sys
sys.argv = ["fuzz.py", "3", "--only", "pictures"]
sys.path.insert(0, {str(FUZZ.parent)!r})
import fuzz
fuzz.KINDS["pictures"] = lambda folder: lambda random: 1 / 0
sys.exit(fuzz.main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout.count("ZeroDivisionError") == 3
