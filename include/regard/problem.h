// Problem: the sizes and positions of one attention call. Layer: plan.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "regard/view.h"

namespace regard {

struct Problem {
  int64_t batch = 1;
  int64_t heads = 1;     // query heads
  int64_t kv_heads = 1;  // divides heads; query head h reads KV head h / (heads / kv_heads)
  int64_t nq = 0, nk = 0;
  int64_t dk = 0, dv = 0;
  float scale = 0;  // multiplies q.k; of_views() sets 1 / sqrt(dk) where the caller gives none
  // Position of query 0 on the keys' axis. nk - nq by default: the last query meets the last key
  // ("bottom right"), so a strip of new queries over a cache needs nothing said.
  int64_t offset = 0;
  // Packed sequences: cumulative lengths {0, n0, n0 + n1, ...} of queries and keys. Empty: one
  // sequence. Pairs of different sequences do not exist; inside each, the last query meets the
  // last key, and `offset` is not used.
  std::vector<int64_t> cu_q, cu_k;

  int64_t group() const { return heads / kv_heads; }
  std::string str() const;  // "b1 h9:3 nq512 nk8192 d64"
  // Throws Error unless sizes are positive and consistent.
  void check() const;

  // From q [B, heads, nq, dk], k [B, kv_heads, nk, dk], v [B, kv_heads, nk, dv]. Checks ranks,
  // matching heads and types. `scale` NaN: 1 / sqrt(dk).
  static Problem of_views(const View& q, const View& k, const View& v,
                          float scale = std::numeric_limits<float>::quiet_NaN());
};

}  // namespace regard
