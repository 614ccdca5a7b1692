#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "regard/memory.h"
#include "regard/status.h"

namespace regard {
namespace {

void copy_tokens(const View& from, const View& to, int64_t tokens) {
  for (int64_t b = 0; b < from.size[0]; ++b)
    for (int64_t h = 0; h < from.size[1]; ++h)
      std::memcpy(to.at(b, h, 0), from.at(b, h, 0), size_t(tokens * from.stride[2]));
}

void round_tokens(const View& from, const View& to, int64_t first) {
  std::vector<float> row(static_cast<size_t>(from.size[3]));
  for (int64_t b = 0; b < from.size[0]; ++b)
    for (int64_t h = 0; h < from.size[1]; ++h)
      for (int64_t n = 0; n < from.size[2]; ++n) {
        read_row(from, b, h, n, row.data());
        write_row(to, b, h, first + n, row.data());
      }
}

}  // namespace

KvCache::KvCache(int64_t batch, int64_t kv_heads, int64_t dk, int64_t dv, DType dtype,
                 int64_t reserve)
    : dtype_(dtype), written_(std::make_shared<int64_t>(0)) {
  if (batch < 1 || kv_heads < 1 || dk < 1 || dv < 1 || reserve < 0)
    throw Error(fmt::format("cache: sizes must be positive, got b{} h{} d{}:{} reserve {}", batch,
                            kv_heads, dk, dv, reserve));
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16)
    throw Error(fmt::format("cache: {} rows; accepted: f32, f16, bf16", info(dtype).name));
  k_ = make_tensor(dtype, {batch, kv_heads, reserve, dk});
  v_ = make_tensor(dtype, {batch, kv_heads, reserve, dv});
}

int64_t KvCache::capacity() const { return k_.view.size[2]; }

int64_t KvCache::bytes() const { return (k_.view.numel() + v_.view.numel()) * info(dtype_).bytes; }

View KvCache::k() const { return slice_tokens(k_.view, 0, tokens_); }
View KvCache::v() const { return slice_tokens(v_.view, 0, tokens_); }

void KvCache::grow(int64_t needed) {
  for (Tensor* t : {&k_, &v_}) {
    std::array<int64_t, 4> size = t->view.size;
    size[2] = needed;
    Tensor larger = make_tensor(dtype_, size);
    copy_tokens(t->view, larger.view, tokens_);
    *t = std::move(larger);
  }
  written_ = std::make_shared<int64_t>(tokens_);
}

void KvCache::append(const View& k, const View& v) {
  const auto& have_k = k_.view.size;
  const auto& have_v = v_.view.size;
  const int64_t n = k.size[2];
  if (k.size != std::array{have_k[0], have_k[1], n, have_k[3]} ||
      v.size != std::array{have_v[0], have_v[1], n, have_v[3]} || k.dtype == DType::i32 ||
      v.dtype == DType::i32)
    throw Error(fmt::format("cache append: k {} and v {}; accepted: [{},{},n,{}] and [{},{},n,{}]",
                            k.shape(), v.shape(), have_k[0], have_k[1], have_k[3], have_v[0],
                            have_v[1], have_v[3]));
  // A fork that shares this storage may already have written past our last token.
  const bool contested = written_.use_count() > 1 && *written_ > tokens_;
  const int64_t needed = tokens_ + n;
  if (contested || needed > capacity())
    grow(needed > capacity() ? std::max(needed, 2 * capacity()) : capacity());
  round_tokens(k, k_.view, tokens_);
  round_tokens(v, v_.view, tokens_);
  *written_ = tokens_ = needed;
}

void KvCache::drop(int64_t keep) {
  if (keep < 0 || keep > tokens_)
    throw Error(fmt::format("cache drop: keep {} of {} tokens", keep, tokens_));
  tokens_ = keep;
  if (written_.use_count() == 1) *written_ = keep;
}

}  // namespace regard
