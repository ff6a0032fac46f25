# SPDX-License-Identifier: GPL-2.0-only
"""Integration jobs in osstest's vocabulary: flights, jobs, recipes, steps (``osstest/run``).

A runner of our own. Names, statuses, tables and the form of the report are those that
people who use osstest know; see docs/osstest.md.
"""
