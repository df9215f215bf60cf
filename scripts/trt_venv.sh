#!/usr/bin/env bash
# Make the environment of `make test-trt`: requirements/trt.txt on top of the project's own one,
# whose packages it sees without copying them.
#
#   scripts/trt_venv.sh .venv .venv-trt
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
base="$1" venv="$2"
stamp="$venv/.noisegate-$(cat requirements/trt.txt requirements/constraints.txt | sha256sum | cut -c1-16)"
[ ! -e "$stamp" ] || exit 0
"$base/bin/python" -m venv "$venv"
site='import sysconfig; print(sysconfig.get_path("purelib"))'
"$base/bin/python" -c "$site" >"$("$venv/bin/python" -c "$site")/base.pth"
"$venv/bin/python" -m pip install --disable-pip-version-check --no-input -q -r requirements/trt.txt
rm -f "$venv"/.noisegate-*
: >"$stamp"
