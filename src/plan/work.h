// Work: one branch of a plan with everything a kernel needs, flat. Layer: plan.
#pragma once
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
  View q, k, v;   // k and v already pooled where the source says so
  View key_bias;  // branch score's key_bias plus ln(tokens a pooled key), or empty
  const RowRanges* ranges = nullptr;  // the whole of causal, windows, bands and segments
  // finish: write `out` (divide, sink) and lse; otherwise write `partial` before any division.
  bool finish = true;
  Out out;
  PartialView partial;
  int threads = 1;
};

}  // namespace regard
