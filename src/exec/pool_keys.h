// Pooled keys and values: what a branch with source `pooled` reads instead of the cache. Layer:
// exec.
#pragma once
#include "regard/plan.h"

namespace regard {

// k, v: means over the branch's block of tokens, f32 [B, kv_heads, ceil(nk / block), d].
// key_bias: f32 [B, kv_heads, 1, blocks], ln(tokens in the block) plus the branch's own key_bias.
void pool_keys(const Problem& p, const Branch& br, const View& k, const View& v, int threads,
               Tensor* pooled_k, Tensor* pooled_v, Tensor* key_bias);

}  // namespace regard
