# SPDX-License-Identifier: GPL-2.0-only
"""Imported first by each step: lets it find the package that all scripts share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
