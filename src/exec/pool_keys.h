// What a branch reads instead of the cache: pooled keys and values, mapped values. Layer: exec.
#pragma once
#include "regard/plan.h"

namespace regard {

// k, v: means over the branch's block of tokens, f32 [B, kv_heads, ceil(nk / block), d].
// key_bias: f32 [B, kv_heads, 1, blocks], ln(tokens in the block) plus the branch's own key_bias.
void pool_keys(const Problem& p, const Branch& br, const View& k, const View& v, int threads,
               Tensor* pooled_k, Tensor* pooled_v, Tensor* key_bias);

// The source's value map applied to v (of any number of keys): f32 [B, kv_heads, keys, dv].
Tensor map_values(const Source& source, const View& v, int threads);

}  // namespace regard
