// Planted problems: q, k, v whose attention has a known structure. Layer: exec.
//
// Random data is a poor stand-in for attention (spread evenly, so that any method looks bad), and
// real tensors have no known answer. Here every planted pair of query and key has the logit
// L = 4 + ln 2 * bit_width(nk) at scale 1 / sqrt(dk), every other pair noise of about L / sqrt(dk),
// so nearly all of a row's mass lies on its planted pairs, and the best mask is known. The same
// seed gives the same bits on every machine: integers, IEEE arithmetic, no libm.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "regard/problem.h"
#include "regard/view.h"

namespace regard {

struct PlantedKind {
  const char* name;
  const char* structure;  // which pairs are planted
};
// Sorted by name.
const std::vector<PlantedKind>& planted_kinds();

struct Planted {
  Tensor q, k, v;  // f32 [B, heads, nq, dk], [B, kv_heads, nk, dk], [B, kv_heads, nk, dv]
  // Whether query i of a head should keep key j: the best mask, before causality. At and before the
  // query's position i + problem.offset only.
  std::function<bool(int64_t b, int64_t head, int64_t i, int64_t j)> keeps;
};

// Uses batch, heads, kv_heads, nq, nk, dk, dv and offset of `p`. Throws Error for an unknown name.
Planted planted(const std::string& name, const Problem& p, uint64_t seed = 0);

}  // namespace regard
