"""What every test shares: few threads, so that two tests at once do not starve each other of two cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
