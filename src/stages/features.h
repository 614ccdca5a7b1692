// Feature maps and learned maps for branches of linear attention. Layer: stages.
#pragma once
#include <cstdint>
#include <string>

#include "regard/ctx.h"
#include "regard/plan.h"

namespace regard::features {

// Weights by positive random features: `count` directions (an odd one is left out), w and -w for
// every w of random_normal(seed, 0, n, channel). count 0: int(dk ln dk).
Weight random(const Problem& p, int64_t count, int64_t seed);

// The same with given w: [1, 1, any, dk]; -w is added.
Weight given(const Problem& p, const Tensor& directions);

// "softmax", "elu" (elu + 1) or "relu".
Weight named(const std::string& name);

// Keys or values that stand for `width` tokens every `stride` tokens, whole ones only (NSA, arXiv
// 2502.11089, equation 7): phi of the tokens side by side, f32 [B, kv_heads, at least 1, d]. phi is
// `first`, or `second` of `act` of `first`: [1, 1|kv_heads, in, out], or with one row more, the
// bias. `position`, [1, 1|kv_heads, width, d], is added to the tokens before. Without `first` their
// mean. rope: base of the rotation that the tokens carry (halves paired); it is undone before, and
// the result stands at its first token's position. 0: none.
struct Compressor {
  int64_t width = 32, stride = 16;
  double rope = 0;
  Tensor position{}, first{}, second{};
  std::string act = "relu";  // "relu", "gelu" (with erf) or "silu"
};
Tensor compress(const Ctx& ctx, const char* what, const View& x, const Compressor& how);

// A linear layer y = W x + b after attention, as the map of the values (Source::value_map). weight:
// [1, 1|kv_heads, dv, dv], rows are outputs; bias: dv numbers.
Tensor output_map(const Problem& p, const Tensor& weight, const Tensor& bias);

}  // namespace regard::features
