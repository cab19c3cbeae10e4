#!/usr/bin/env bash
# Runs the kernels on the host against their definitions: test.cpp; then once more under ThreadSanitizer, for accesses to shared memory that no
# barrier puts in order. Needs g++.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$here"
g++ -std=c++17 -O1 -fno-strict-aliasing -I. test.cpp -o "$work/test"
"$work/test"
g++ -std=c++17 -O1 -g -fsanitize=thread -fno-strict-aliasing -I. test.cpp -o "$work/races"
# Its shadow memory wants addresses that are not drawn at random, which not everyone may ask for.
still=(setarch -R)
"${still[@]}" true 2>/dev/null || still=()
TSAN_OPTIONS=halt_on_error=1 "${still[@]}" "$work/races" few >"$work/said" || { tail -20 "$work/said"; exit 1; }
echo "kernels on the host: no races"
