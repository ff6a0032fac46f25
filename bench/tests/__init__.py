# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the benchmark's own logic: ``python3 -m unittest discover -s bench/tests -t .``"""
