// Order: axes permuted, so that tokens which belong together stand together. Layer: plan.
//
// A cover counts PLACES of the permuted axes; rule and score see the TOKENS that stand there, at
// their original positions. Undoing an order is nothing: kernels write to the query's own row.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

namespace regard {

struct Permutation {
  int64_t batch = 1;            // 1 (shared) or problem.batch
  int64_t heads = 1;            // 1 (shared), problem.kv_heads (keys only) or problem.heads
  int64_t n = 0;                // tokens of the axis
  std::vector<uint32_t> token;  // [batch, heads, n]: who stands at each place

  const uint32_t* row(int64_t b, int64_t h, int64_t problem_heads) const {
    return &token[((batch == 1 ? 0 : b) * heads + h * heads / problem_heads) * n];
  }
};

struct Order {
  std::shared_ptr<const Permutation> queries, keys;  // null: as they are
  explicit operator bool() const { return queries || keys; }
};

}  // namespace regard
