// Text problems: one line says the sizes, types, cover, scores and norm of one attention call, for
// `regard check` and `regard bench`. Layer: cli.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "regard/plan.h"

namespace regard::cli {

// "b1 h9:3 nq512 nk8192 d64 kv=f16 causal cover=tiles:0.1:64:64 softcap=30"
//   b, h heads[:kv heads], nq, nk, d dk[:dv]; all but h, nq, nk and d may be left out
//   q= k= v= kv= out=            element types (f32 by default)
//   causal
//   cover=all | band:LEFT:RIGHT[:SINK] | tiles:DENSITY[:BQ[:BK[:banded]]] | columns:DENSITY[:BQ]
//     keep-sets, random or banded, one a query head; after a causal rule, of the pairs it leaves
//   cover=means:BLOCK:KEEP | method=NAME:PARAMETERS    covers that are estimated from q and k
//   numeric=NAME                                       arithmetic of the plan's branches
//   softcap=X alibi bias=TYPE keybias norm=sink|sigmoid mask=DENSITY pooled=BLOCK seed=N
struct TextProblem {
  std::string text;
  Plan plan;
  std::function<Plan(int threads)> make_plan;  // estimated covers: makes `plan` again
  Tensor q, k, v, out, lse;
  std::string why_not_ggml;  // empty: ggml's own kernel can run it too
  double softcap = 0;
  double kv_bytes() const;
};

// Throws Error that quotes the word it cannot read.
TextProblem parse_problem(const std::string& line);

}  // namespace regard::cli
