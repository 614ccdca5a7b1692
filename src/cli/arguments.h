// Arguments that several verbs take: a method, its inputs, threads. Layer: cli.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "regard/inputs.h"
#include "regard/method.h"

namespace regard::cli {

// METHOD [--set k=v ...]
struct MethodArguments {
  std::string spec;
  std::vector<std::string> set;

  void add(CLI::App& verb);
  Method parse() const;
};

struct LoadedInputs {
  Tensor q, k, v;
  Inputs inputs;  // views of the above
};

// --in FILE.safetensors | --in Q.npy K.npy V.npy | --planted NAME --heads --tokens ...
struct InputArguments {
  std::vector<std::string> files;
  std::string planted;
  int64_t batch = 1, heads = 4, kv_heads = 0, tokens = 2048, queries = 0, dim = 64;
  uint64_t seed = 0;
  bool causal = true;
  std::string numeric;         // empty: f32
  std::optional<float> scale;  // none: 1 / sqrt(dk)

  void add(CLI::App& verb, bool with_planted);
  // `v_needed` false: K stands in for a missing V.
  LoadedInputs load(bool v_needed) const;
};

void add_threads(CLI::App& verb, int* threads);

}  // namespace regard::cli
