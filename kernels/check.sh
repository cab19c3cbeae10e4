#!/usr/bin/env bash
# Compiles the kernels again, with the compiler of requirements.txt: they compile, the committed PTX was made of these very sources,
# and has the same entries with the same parameters. Needs python3 with venv, and g++.
#
# The instructions are not compared: the compiler orders some of its choices by the addresses of its own objects, and two runs
# over scan_backward.cu may load four numbers at once or one by one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
nvcc=$(ls "$work"/venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
NVCC=$nvcc "$here/build.sh" "$work/ptx"

# Each entry with its parameters.
entries() { (cd "$1" && for file in *.ptx; do echo "$file" && sed -n '/\.entry/,/^)/p' "$file"; done); }
stale() { echo "kernels: kernels/ptx $1; run kernels/build.sh" >&2; exit 1; }
cmp -s "$work/ptx/sources.sha256" "$here/ptx/sources.sha256" || stale "was made of other sources"
diff -q <(entries "$work/ptx") <(entries "$here/ptx") >/dev/null || stale "has other entries than kernels/*.cu"
echo "kernels: $(ls "$here"/ptx/*.ptx | wc -l) files compile to the committed entries"
