# SPDX-License-Identifier: GPL-2.0-only
"""Makes the helpers of ``scripts/`` importable from here."""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BENCH = REPO / "bench"

_SCRIPTS = str(REPO / "scripts")
if _SCRIPTS not in sys.path:
    sys.path.append(_SCRIPTS)
