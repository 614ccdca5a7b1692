// What a plan keeps, as lists, as bits of tiles, and as bits of pairs. Layer: plan.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace regard {

class DeviceBits;  // what a GPU made and keeps until the host asks (src/plan/on_device.h)
class DeviceList;

// Index lists: compressed rows of key tiles, one row a (batch, head, tile of queries).
struct IndexList {
  static constexpr uint32_t kBoundary = 1u << 31;  // some pair inside the tile is not allowed

  int64_t batch = 1;  // 1 (shared) or problem.batch
  int64_t heads = 1;  // 1 (shared), problem.kv_heads or problem.heads
  int64_t rows = 0;   // ceil(nq / bq): tile row r holds queries [r * bq, min((r + 1) * bq, nq))
  int64_t cols = 0;   // ceil(nk / bk): tile column c holds keys [c * bk, min((c + 1) * bk, nk))
  int32_t bq = 0;
  int32_t bk = 0;               // 1: single key tokens (Columns)
  std::vector<int64_t> start;   // [lists() + 1], batch * heads * rows of them unless shared
  std::vector<uint32_t> index;  // sorted, unique in a row, compared without the flag
  // Tile rows that read the same keys may share one list: [batch * heads * rows] numbers of lists,
  // and `start` frames lists instead of rows. Empty: every tile row has its own.
  std::vector<uint32_t> list_of;

  int64_t lists() const { return int64_t(start.size()) - 1; }
  // The list that a tile row reads: its tiles are index[start[id], start[id + 1]).
  int64_t row_id(int64_t b, int64_t h, int64_t r, int64_t problem_heads) const {
    const int64_t bb = batch == 1 ? 0 : b;
    const int64_t hh = h * heads / problem_heads;  // 1: 0; kv_heads: h / group; heads: h
    const int64_t row = (bb * heads + hh) * rows + r;
    return list_of.empty() ? row : list_of[row];
  }
};

// A list that many plans may share, on the host or on a GPU. Reading one through this brings it to
// the host, once, and waits for it; shape() does not.
class ListRef {
 public:
  ListRef() = default;
  template <class T>
  requires std::is_convertible_v<std::shared_ptr<T>, std::shared_ptr<const IndexList>> ListRef(
      std::shared_ptr<T> list)
      : host_(std::move(list)) {}
  explicit ListRef(std::shared_ptr<const DeviceList> list) : device_(std::move(list)) {}

  explicit operator bool() const { return host_ || device_; }
  const std::shared_ptr<const IndexList>& host() const;
  const IndexList* get() const { return host().get(); }
  const IndexList& operator*() const { return *host(); }
  const IndexList* operator->() const { return host().get(); }
  const IndexList& shape() const;  // of a list on a GPU: all but its arrays
  const DeviceList* device() const { return device_.get(); }

 private:
  std::shared_ptr<const IndexList> host_;
  std::shared_ptr<const DeviceList> device_;
};

// A keep-set of tiles as bits: what selectors make and recipes combine. `lower` turns it into a
// list. Bits that a GPU made stay there: set algebra and lists are made there too, and reading or
// writing single bits brings them to the host.
class TileBits {
 public:
  TileBits() = default;
  TileBits(int64_t batch, int64_t heads, int64_t rows, int64_t cols);
  TileBits(int64_t batch, int64_t heads, int64_t rows, int64_t cols,
           std::shared_ptr<const DeviceBits> bits)
      : batch(batch), heads(heads), rows(rows), cols(cols), device_(std::move(bits)) {}

  int64_t batch = 0, heads = 0, rows = 0, cols = 0;
  bool get(int64_t b, int64_t h, int64_t r, int64_t c) const {
    return word(b, h, r)[c >> 6] >> (c & 63) & 1;
  }
  void set(int64_t b, int64_t h, int64_t r, int64_t c, bool on = true) {
    uint64_t& w = word(b, h, r)[c >> 6];
    w = on ? w | 1ull << (c & 63) : w & ~(1ull << (c & 63));
  }
  int64_t words_per_row() const { return (cols + 63) / 64; }
  const uint64_t* word(int64_t b, int64_t h, int64_t r) const {
    return words().data() + ((b * heads + h) * rows + r) * words_per_row();
  }
  uint64_t* word(int64_t b, int64_t h, int64_t r) {
    if (device_) bring();
    return words_.data() + ((b * heads + h) * rows + r) * words_per_row();
  }
  const std::shared_ptr<const DeviceBits>& device() const { return device_; }  // null: on the host
  int64_t count() const;
  void fill(bool on);

  // Set algebra. Sizes must agree, but a batch or head axis of 1 broadcasts.
  friend TileBits operator|(const TileBits& a, const TileBits& b);
  friend TileBits operator&(const TileBits& a, const TileBits& b);
  friend TileBits operator-(const TileBits& a, const TileBits& b);  // in a, not in b
  friend bool operator==(const TileBits& a, const TileBits& b);

 private:
  const std::vector<uint64_t>& words() const { return device_ ? brought() : words_; }
  const std::vector<uint64_t>& brought() const;  // the host's copy
  void bring();

  std::vector<uint64_t> words_;  // bits past `cols` are zero; empty where they lie on a GPU
  std::shared_ptr<const DeviceBits> device_;
};

// Token-exact mask: bit (i, j) set = query i may read key j.
struct BitMask {
  int64_t batch = 1, heads = 1, nq = 0, nk = 0;  // batch, heads: 1 = shared
  std::vector<uint64_t> words;                   // [batch, heads, nq, ceil(nk / 64)]
  int64_t words_per_row() const { return (nk + 63) / 64; }
  const uint64_t* row(int64_t b, int64_t h, int64_t i) const {
    return &words[((((batch == 1 ? 0 : b) * heads) + (heads == 1 ? 0 : h)) * nq + i) *
                  words_per_row()];
  }
  bool get(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return row(b, h, i)[j >> 6] >> (j & 63) & 1;
  }
};

}  // namespace regard
