# SPDX-License-Identifier: GPL-2.0-only
"""Entry point: ``python3 scripts run ...`` and ``python3 scripts test ...``."""

import sys

from xenits.cli import main

sys.exit(main(sys.argv[1:]))
