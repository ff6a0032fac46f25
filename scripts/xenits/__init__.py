# SPDX-License-Identifier: GPL-2.0-only
"""Build Xen with the ITS component, boot Dom0 on QEMU, and judge the boot."""
