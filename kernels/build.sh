#!/usr/bin/env bash
# Compiles every kernel here to PTX for sm_80 and newer: kernels/ptx/*.ptx, which are committed, with the hashes of what they
# were made of.
#
#   NVCC=/path/to/nvcc kernels/build.sh [OUT]      # OUT: kernels/ptx
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/ptx}
nvcc=${NVCC:-nvcc}
command -v "$nvcc" >/dev/null || { echo "kernels: no nvcc; set NVCC or install a CUDA 13 toolkit" >&2; exit 2; }
mkdir -p "$out"
cd "$here"
rm -f "$out"/*.ptx
for source in *.cu; do
    "$nvcc" -ptx -arch=compute_80 -O3 -std=c++17 "$source" -o "$out/${source%.cu}.ptx"
done
sha256sum *.cu *.cuh >"$out/sources.sha256"
