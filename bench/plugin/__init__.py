# SPDX-License-Identifier: GPL-2.0-only
"""The QEMU plugin that counts, and how to build it."""
