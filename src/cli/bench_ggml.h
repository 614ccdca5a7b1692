// ggml's own CPU flash attention on a text problem, as the peer of `regard bench`. Layer: cli.
#pragma once
#include <memory>
#include <string>

#include "cli/bench_problem.h"

namespace regard::cli {

class GgmlAttention {
 public:
  virtual ~GgmlAttention() = default;
  virtual void run() = 0;
  virtual View out() const = 0;  // f32 [batch, heads, nq, dv], of the last run
  // Borrows the problem's tensors. Null, and why, where ggml is not built in or has no such kernel.
  static std::unique_ptr<GgmlAttention> make(const TextProblem& x, int threads, std::string* why);
};

}  // namespace regard::cli
