// Tensors: the memory that one attention call reads and writes. Layer: plan.
#pragma once
#include "regard/out.h"
#include "regard/view.h"

namespace regard {

struct Tensors {
  View q;  // [B, heads, nq, dk]
  // [B, kv_heads, nk, dk] and dv. With `pages`: a pool [pages, kv_heads, page, dk] and dv, where
  // key j of item b is token j % page of pool page pages[b, j / page].
  View k, v;
  Out out;
  // i32 [B, 1, 1, at least ceil(nk / page)], contiguous rows; page is a power of two. Read while
  // running, so that its entries are not checked: they must be pages of the pool.
  View pages;
};

}  // namespace regard
