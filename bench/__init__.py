# SPDX-License-Identifier: GPL-2.0-only
"""What an interrupt costs in the hypervisor, counted in instructions."""
