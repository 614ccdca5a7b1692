// Text problems on a GPU, for `regard check` and `regard bench`. Layer: cli.
#pragma once
#include <string>
#include <vector>

#include "cli/bench_problem.h"
#include "regard/tensors.h"

namespace regard::cli {

// A problem's tensors on the current GPU, f32 ones as halves of `type` (cli/gpu.h); quantised keys
// stay what they are, and are refused.
struct DeviceProblem {
  explicit DeviceProblem(const TextProblem& x);
  DType type;
  Tensors t;
  Tensor q, k, v;  // on the host, of `type`

 private:
  std::vector<Tensor> own_;
  View up(const Tensor& host);
};

// Every implementation for GPUs that can, against the reference; the others are listed with their
// reasons. Returns the number of failures; adds the runs to *runs.
int check_cuda(const std::vector<std::string>& lines, int threads, size_t* runs);

// Times each problem in a CUDA graph on the first implementation that can (or `impl`), and prints
// TFLOP/s of allowed pairs and GB/s of keys and values. `json`: a file for the table too, or empty.
void bench_cuda(const std::vector<std::string>& lines, const std::string& impl, int repeats,
                const std::string& json);

}  // namespace regard::cli
