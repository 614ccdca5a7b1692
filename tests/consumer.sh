#!/usr/bin/env bash
# A stranger's project: install the package somewhere, build the examples against it, run them.
# Usage: consumer.sh BUILD_DIR SOURCE_DIR
set -euo pipefail
build=$1 source=$2 work=$1/consumer
rm -rf "$work"
cmake --install "$build" --prefix "$work/prefix" >"$build/consumer.log"
cmake -G Ninja -B "$work/build" -S "$source/examples" -DCMAKE_PREFIX_PATH="$work/prefix" >>"$build/consumer.log"
cmake --build "$work/build" >>"$build/consumer.log"
"$work/build/example_cpp" | tee "$work/out.txt"
"$work/build/example_method" | tee -a "$work/out.txt"
"$work/build/example_c" | tee -a "$work/out.txt"
grep -q 'c on cpu: density 0.* first output off by 0$' "$work/out.txt"
grep -q 'c error: .*KV heads' "$work/out.txt"
grep -q 'dense .*density 1.000  relative error 0$' "$work/out.txt"
grep -q 'first output 0.500' "$work/out.txt"
