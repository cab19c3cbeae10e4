#!/usr/bin/env bash
# Runs the kernels on the host against their definitions: test.cpp. Needs g++.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$here"
g++ -std=c++17 -O1 -fno-strict-aliasing -I. test.cpp -o "$work/test"
"$work/test"
