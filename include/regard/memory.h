// Memory: where past tokens live. Layer: memory.
//
// One lifecycle: append, read, fork, drop. Plans hold logical token ids, so a plan made over a
// cache stays right when the cache's storage moves.
#pragma once
#include <cstdint>
#include <memory>

#include "regard/view.h"

namespace regard {

// Keys and values of one layer, contiguous per head: k [B, kv_heads, tokens, dk], v likewise with
// dv. Grows by doubling. Not thread safe.
class KvCache {
 public:
  // `dtype` is how rows are kept: f32, f16 or bf16.
  KvCache(int64_t batch, int64_t kv_heads, int64_t dk, int64_t dv, DType dtype = DType::f16,
          int64_t reserve = 0);

  int64_t tokens() const { return tokens_; }
  int64_t capacity() const;
  int64_t bytes() const;  // held now, for keys and values together

  // Adds the tokens of k [B, kv_heads, n, dk] and v [B, kv_heads, n, dv], any readable type,
  // rounding to the cache's. Throws Error on other shapes; nothing is added then.
  void append(const View& k, const View& v);

  // Views of the tokens so far; valid until the next append, drop or destruction.
  View k() const;
  View v() const;

  // A second cache with the same tokens. Storage is shared until one of them appends.
  KvCache fork() const { return *this; }

  // Forgets all but the first `keep` tokens (speculative decoding, a shorter prefix).
  void drop(int64_t keep);

 private:
  void grow(int64_t needed);

  DType dtype_;
  int64_t tokens_ = 0;
  Tensor k_, v_;                      // [B, kv_heads, capacity, d]
  std::shared_ptr<int64_t> written_;  // tokens that some owner of this storage has written
};

}  // namespace regard
