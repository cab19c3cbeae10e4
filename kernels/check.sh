#!/usr/bin/env bash
# Compiles the kernels again, with the compiler of requirements.txt, and compares: what is committed is what the sources say.
# Needs python3 with venv, and g++.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
NVCC=$(ls "$work"/venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc) "$here/build.sh" "$work/ptx"
diff -rq "$work/ptx" "$here/ptx" || { echo "kernels: kernels/ptx is not what kernels/*.cu give; run kernels/build.sh" >&2; exit 1; }
echo "kernels: $(ls "$here"/ptx | wc -l) files compile to what is committed"
