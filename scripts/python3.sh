# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by run and test: make sure that there is a python3 to go on with.
if ! command -v python3 >/dev/null; then
    echo "python3 is missing: installing it with apt-get" >&2
    as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
    { "${as_root[@]}" apt-get -qq update && "${as_root[@]}" apt-get install -y -qq --no-install-recommends python3; } >&2 ||
        { echo "cannot install python3: install it by hand and try again" >&2; exit 1; }
fi
