// What a whole call shares: factors in base-2 units and positions. Layer: cpu.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/isa.h"
#include "cpu/items.h"

namespace regard::cpu {

// Scores are kept in units of log2(e): the exponential is then a bare 2^x, and its factor is folded
// into the packed queries (soft-cap: into the factor behind the tanh).
struct Call {
  explicit Call(const Work& work) : w(work), score(w.branch->score), norm(w.branch->norm) {
    const float log2e = 1.442695040888963f;
    const Problem& p = w.problem;
    q_factor = score.softcap > 0 ? p.scale / score.softcap : p.scale * log2e;
    cap = score.softcap * log2e;
    shift = norm.shift * log2e;
    value_skip = w.branch->value_skip * log2e;
    sigmoid = norm.kind == NormKind::sigmoid;
    mask = w.branch->rule.mask.get();
    bare = score.softcap == 0 && score.alibi.empty() && !score.bias && !w.key_bias;
    numeric = parse_numeric(w.branch->numeric);
    if (score.alibi.empty()) return;
    position.resize(p.nq);
    for (int64_t i = 0; i < p.nq; ++i) position[i] = int32_t(i + p.offset);
    for (size_t s = 0; s + 1 < p.cu_q.size(); ++s) {  // the last query meets the last key
      for (int64_t i = p.cu_q[s]; i < p.cu_q[s + 1]; ++i) {
        position[i] = int32_t(i - p.cu_q[s + 1] + p.cu_k[s + 1]);
      }
    }
  }

  const Work& w;
  const Score& score;
  const Norm& norm;
  float q_factor = 0, cap = 0, shift = 0, value_skip = 0;
  bool sigmoid = false;
  bool bare = false;  // scores are q.k, but for masks and ranges
  const BitMask* mask = nullptr;
  Numeric numeric = Numeric::f32;
  std::vector<int32_t> position;  // [nq] on the keys' axis; only for alibi
};

}  // namespace regard::cpu
