# SPDX-License-Identifier: GPL-2.0-only
"""Python packages that only the reports need; they are in the cache, not on the machine."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ..tools import python_packages

REQUIREMENTS = ["jinja2==3.1.6", "markupsafe==3.0.4", "junitparser==5.0.3"]


def load(name: str, log: Path) -> Any:
    """The module `name` of one of them; all are installed the first time."""
    home = python_packages("reports", REQUIREMENTS, log)
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    return importlib.import_module(name)
