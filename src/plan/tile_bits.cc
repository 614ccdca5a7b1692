#include <fmt/format.h>

#include <bit>

#include "plan/on_device.h"
#include "regard/plan.h"
#include "regard/status.h"

namespace regard {
namespace {

template <class Op>
TileBits combine(const TileBits& a, const TileBits& b, const char* name, DeviceBits::Op there,
                 Op op) {
  const auto fits = [](int64_t x, int64_t y) { return x == y || x == 1 || y == 1; };
  if (a.rows != b.rows || a.cols != b.cols || !fits(a.batch, b.batch) || !fits(a.heads, b.heads))
    throw Error(fmt::format("tile bits {}: [{},{},{},{}] and [{},{},{},{}] do not fit", name,
                            a.batch, a.heads, a.rows, a.cols, b.batch, b.heads, b.rows, b.cols));
  if (const auto& device = a.device() ? a.device() : b.device())
    return device->combined(a, there, b);
  TileBits out(std::max(a.batch, b.batch), std::max(a.heads, b.heads), a.rows, a.cols);
  const int64_t words = out.words_per_row() * out.rows;
  if (words == 0) return out;
  for (int64_t i = 0; i < out.batch; ++i)
    for (int64_t h = 0; h < out.heads; ++h) {
      const auto of = [&](const TileBits& t) {
        return t.word(t.batch == 1 ? 0 : i, t.heads == 1 ? 0 : h, 0);
      };
      uint64_t* dst = out.word(i, h, 0);
      for (int64_t w = 0; w < words; ++w) dst[w] = op(of(a)[w], of(b)[w]);
    }
  return out;
}

}  // namespace

TileBits::TileBits(int64_t batch, int64_t heads, int64_t rows, int64_t cols)
    : batch(batch), heads(heads), rows(rows), cols(cols) {
  words_.resize(size_t(batch * heads * rows * words_per_row()));
}

int64_t TileBits::count() const {
  int64_t n = 0;
  for (uint64_t w : words()) n += std::popcount(w);
  return n;
}

const std::vector<uint64_t>& TileBits::brought() const { return device_->host(); }

void TileBits::bring() {
  words_ = device_->host();
  device_.reset();
}

void TileBits::fill(bool on) {
  if (device_) bring();
  const int64_t per_row = words_per_row();
  const uint64_t last = cols % 64 ? (1ull << cols % 64) - 1 : ~0ull;
  for (size_t w = 0; w < words_.size(); ++w)
    words_[w] = !on ? 0 : int64_t(w) % per_row == per_row - 1 ? last : ~0ull;
}

TileBits operator|(const TileBits& a, const TileBits& b) {
  return combine(a, b, "|", DeviceBits::Op::either, [](uint64_t x, uint64_t y) { return x | y; });
}
TileBits operator&(const TileBits& a, const TileBits& b) {
  return combine(a, b, "&", DeviceBits::Op::both, [](uint64_t x, uint64_t y) { return x & y; });
}
TileBits operator-(const TileBits& a, const TileBits& b) {
  return combine(a, b, "-", DeviceBits::Op::without, [](uint64_t x, uint64_t y) { return x & ~y; });
}
bool operator==(const TileBits& a, const TileBits& b) {
  return a.batch == b.batch && a.heads == b.heads && a.rows == b.rows && a.cols == b.cols &&
         a.words() == b.words();
}

const std::shared_ptr<const IndexList>& ListRef::host() const {
  return device_ ? device_->host() : host_;
}

const IndexList& ListRef::shape() const { return device_ ? device_->shape() : *host_; }

}  // namespace regard
