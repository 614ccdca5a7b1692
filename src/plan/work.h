// Work: one branch of a plan with everything a kernel needs, flat. Layer: plan.
#pragma once
#include <vector>

#include "regard/out.h"
#include "regard/partial.h"
#include "regard/plan.h"

namespace regard {

// A Partial for every query row: contiguous f32.
struct PartialView {
  float* acc = nullptr;  // [B, heads, nq, dv]
  float* max = nullptr;  // [B, heads, nq]
  float* sum = nullptr;  // [B, heads, nq]
};

struct Work {
  Problem problem;  // nk counts SOURCE keys (pooled: blocks)
  const Branch* branch = nullptr;
  // Tiles and columns: the branch's list, and those of branches that differ from it in nothing else
  // (fusible(), below) and run with it as one. Rows are cut alike; no pair is in two of them.
  std::vector<const IndexList*> lists;
  View q, k, v;   // k and v already pooled where the source says so
  View key_bias;  // branch score's key_bias plus ln(tokens a pooled key), or empty
  const RowRanges* ranges = nullptr;  // the whole of causal, windows, bands and segments
  // finish: write `out` (divide, sink) and lse; otherwise write `partial` before any division.
  bool finish = true;
  Out out;
  PartialView partial;
  int threads = 1;
};

// Whether the branches of a plan can be read as one: they share a softmax (Combine::same), their
// covers are lists over the same rows, and nothing else differs.
bool fusible(const Plan& plan);

}  // namespace regard
