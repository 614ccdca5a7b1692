# The two commands a newcomer needs: make demo, make test. Everything is made inside build/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo frontier test build models test-ggml test-archs test-asan test-tsan bench bench-gate \
        update-bench-gate bench-llama update-instructions docs format clean distclean \
        bootstrap configure test-tools

JOBS  ?= $(shell nproc)
# Your own llama.cpp checkout instead of the pinned sources, such as make demo LLAMA=~/llama.cpp
LLAMA ?=
# make frontier: lengths, minutes a run, and folders of other models' frontiers for the atlas
LENGTHS ?= 2k,4k,8k
BUDGET ?=
FRONTIERS ?=
# What each head of the searched profile may be.
SEARCHED ?= a_shape,a_shape:n_local=128,a_shape:n_local=768,a_shape:n_local=1536,a_shape:n_local=3072,$\
  xattention,xattention:threshold=0.85,vertical_slash:slash_size=300,$\
  vertical_slash:vertical_size=200,slash_size=100,power,longformer:window=256,longformer:window=512
# Whom `make bench` times beside Regard and ggml; torch downloads 2.7 GB.
PEERS ?= openvino
# Anything else for CMake, such as CMAKE_FLAGS=-DREGARD_CUDA=ON
CMAKE_FLAGS ?=

MODEL := build/models/SmolLM2-135M-Instruct.Q4_1.gguf
TEXT  := build/models/debian-reference.txt
PYTHON := build/venv/bin/python
# llama.cpp takes minutes: a compiler cache, where there is one, makes a clean clone quick.
LAUNCHER := $(if $(shell command -v ccache),-DCMAKE_C_COMPILER_LAUNCHER=ccache \
              -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F':[^#]*## ' '{printf "make %-19s %s\n", $$1, $$2}'

demo: configure ## fetch, build, and run three sparse methods in a real model over a long document
	ninja -C build -j $(JOBS) regard_cli ggml-regard regard_python
	build/bin/regard run $(MODEL) $(TEXT) --method a_shape:n_local=2048 \
	  --method vertical_slash:vertical_size=500,slash_size=700 --method xattention \
	  --report build/demo.html --json build/demo.json

frontier: configure ## every method on the model at 2K to 8K tokens (hours; goes on after a stop), and docs/atlas.md
	ninja -C build -j $(JOBS) regard_cli ggml-regard
	test -e build/profile.json || build/bin/regard search $(MODEL) $(TEXT) --ctx 8192 \
	  --bound 0.08 --methods '$(SEARCHED)' --out build/profile.json
	build/bin/regard frontier $(MODEL) $(TEXT) --lengths $(LENGTHS) --profile build/profile.json \
	  --out build/frontier $(if $(BUDGET),--budget $(BUDGET))
	$(PYTHON) tools/gen_atlas.py --out docs/atlas.md build/frontier $(FRONTIERS)

test: build test-tools ## build what is missing and run every test
	tools/bootstrap.sh test-packages
	ctest --test-dir build --output-on-failure --no-tests=error

build: configure ## everything but llama.cpp's own programs
	ninja -C build -j $(JOBS)

models: ## the optional second model, Gemma 3 270M with 32K context
	tools/bootstrap.sh packages python gemma

test-ggml: configure ## ggml's own suite for attention, all of it, against the plug-in
	ninja -C build -j $(JOBS) ggml-regard test-backend-ops
	$(PYTHON) tests/models/ggml_suite.py build/bin --refusals-max 200 --passes-min 5000

test-archs: configure ## every architecture of llama.cpp, random weights, with and without the plug-in
	ninja -C build -j $(JOBS) ggml-regard test-archs
	$(PYTHON) tests/models/archs.py build/bin

test-asan: bootstrap ## the unit tests under the address and undefined-behaviour sanitizers
	cmake -G Ninja -B build/asan -S . -DCMAKE_BUILD_TYPE=RelWithDebInfo -DREGARD_SANITIZE=ON \
	  -DREGARD_GGML=OFF -DREGARD_PYTHON=OFF -DREGARD_CLI=OFF $(LAUNCHER) $(CMAKE_FLAGS)
	ninja -C build/asan -j $(JOBS)
	ctest --test-dir build/asan --output-on-failure --no-tests=error

test-tsan: bootstrap ## the unit tests under the thread sanitizer
	cmake -G Ninja -B build/tsan -S . -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DREGARD_SANITIZE_THREAD=ON -DREGARD_GGML=OFF -DREGARD_PYTHON=OFF -DREGARD_CLI=OFF \
	  $(LAUNCHER) $(CMAKE_FLAGS)
	ninja -C build/tsan -j $(JOBS)
	ctest --test-dir build/tsan --output-on-failure --no-tests=error

bench: configure ## kernels against the machine's peaks, ggml and OpenVINO: 10 minutes
	ninja -C build -j $(JOBS) regard_cli
	PEERS="$(PEERS)" tools/bootstrap.sh peers
	build/bin/regard bench --group all $(PEERS:%=--peers %) --json build/bench.json \
	  --svg build/bench.svg

bench-gate: configure ## fails if a kernel's ratios got worse than bench/gates by more than noise
	ninja -C build -j $(JOBS) regard_cli
	$(PYTHON) bench/gate.py build/bin/regard

update-bench-gate: configure
	ninja -C build -j $(JOBS) regard_cli
	$(PYTHON) bench/gate.py build/bin/regard --update

bench-llama: configure test-tools ## llama.cpp's own benchmarks with and without the plug-in
	ninja -C build -j $(JOBS) ggml-regard
	$(PYTHON) bench/llama.py build/bin $(MODEL) --out build/bench-llama.md

update-instructions: build ## the record of instructions a pair (tests/instructions)
	tools/bootstrap.sh test-packages
	$(PYTHON) tests/instructions/instructions.py build/bin/one_call --update

docs: build ## the generated pages, one a method
	PYTHONPATH=build/python $(PYTHON) tools/gen_method_docs.py --out build/docs/methods

format: ## clang-format on every C++ file
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' '*.c' | xargs clang-format -i

clean: ## what was compiled; downloads stay
	find build -mindepth 1 -maxdepth 1 ! -name venv ! -name deps ! -name models \
	  -exec rm -rf {} + 2>/dev/null || true

distclean: ## the whole of build/
	rm -rf build

bootstrap:
	@tools/bootstrap.sh packages python $(if $(LLAMA),,llama) model document

configure: bootstrap
	@cmake -G Ninja -B build -S . -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(CURDIR)/$(PYTHON) \
	  -DREGARD_LLAMA_CPP_DIR=$(abspath $(LLAMA)) $(LAUNCHER) $(CMAKE_FLAGS) >build/configure.log || \
	  { cat build/configure.log; exit 1; }

# llama.cpp's own programs, which only tests use.
test-tools: configure
	ninja -C build -j $(JOBS) test-tools
