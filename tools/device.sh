#!/usr/bin/env bash
# The GPU's share of the tests and timings. CI has no GPU; this is what stands in for it.
#   tools/device.sh build DIR   here: builds what is needed into DIR (programs, their libraries,
#                               scripts, problems); copy DIR to a machine with a GPU
#   tools/device.sh check       there, in DIR: tests, regard check, the sanitizers on a small set
#   tools/device.sh bench [--quick]   there: regard bench and the rivals; Markdown for bench/results/
set -euo pipefail
case "${1:-}" in
build)
  root=$(cd "$(dirname "$0")/.." && pwd)
  to=${2:?usage: tools/device.sh build DIR}
  ninja -C "$root/build" test_cuda regard_cli regard_shared regard_python regard_python_files
  mkdir -p "$to/lib"
  cp "$root"/build/bin/{test_cuda,regard,libregard.so} "$to/"
  plans=$(mktemp -d)
  PYTHONPATH=$root/build/python "${PYTHON:-$root/build/venv/bin/python}" \
    "$root/tests/catalogue/write_plans.py" "$plans/plans" >/dev/null
  tar -C "$plans" -cJf "$to/plans.tar.xz" plans
  rm -r "$plans"
  cp "$root"/bench/cuda/{regard_c,rivals}.py "$root"/bench/problems/{check,cuda}.txt "$0" "$to/"
  strip "$to/test_cuda" "$to/regard" "$to/libregard.so"
  # Everything but the C and C++ runtimes, which every machine has.
  ldd "$to/test_cuda" "$to/regard" | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libstdc\+\+|libgcc_s|ld-linux.*)\.so' | xargs -r cp -Lt "$to/lib"
  du -sh "$to"
  ;;
check)
  export LD_LIBRARY_PATH=$PWD/lib
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  tar -xJf plans.tar.xz
  REGARD_PLANS=plans ./test_cuda --gtest_brief=1
  ./regard check --device cuda check.txt cuda.txt
  # Small sets: a sanitizer slows a kernel a hundredfold.
  small='*sm*0_bf16:-*Random*:*Beyond32*:*ManyRow*:*Tiles*:*Decode*:*HeadSizes*:*Groups*:*Scores*:*BadCalls*:*Graphs*'
  for tool in memcheck racecheck initcheck synccheck; do
    echo "compute-sanitizer $tool"
    compute-sanitizer --tool $tool --error-exitcode 9 ./test_cuda --gtest_brief=1 \
      --gtest_filter="${SANITIZE:-$small}" | tail -3
  done
  ;;
bench)
  shift
  export LD_LIBRARY_PATH=$PWD/lib REGARD_LIBRARY=$PWD/libregard.so
  echo "# $(date -u +%F), $(nvidia-smi --query-gpu=name --format=csv,noheader)"
  ./regard bench --device cuda cuda.txt
  python3 rivals.py "$@"
  ;;
*)
  sed -n '2,6s/^# *//p' "$0"
  exit 2
  ;;
esac
