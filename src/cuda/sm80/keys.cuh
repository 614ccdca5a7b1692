// Cover as an iterator: the key tiles of one item, their ids and their rows in memory. Layer: cuda.
#pragma once
#include "cuda/sm80/params.h"
#include "cuda/sm80/ptx.cuh"

namespace regard::cuda::sm80 {

template <class T>
constexpr bool kIsBf16 = false;
template <>
inline constexpr bool kIsBf16<__nv_bfloat16> = true;

// Byte offset of 16-byte chunk `chunk` of row `r` of a tile with kD 16-bit channels. Rows are a
// multiple of 128 bytes; the exclusive or spreads eight rows' same chunk over all the banks.
template <int kD>
__device__ inline uint32_t swizzled(int r, int chunk) {
  return uint32_t(r * (kD / 8) + (chunk ^ (r & 7))) * 16;
}

// A warp's slice of a key tile.
template <int kStep>
struct Span {
  int first = 0, count = 0;  // first: of a run
  bool boundary = true;      // lists: some pair may be forbidden
  const int* ids = nullptr;  // lists
  __device__ __forceinline__ int id(int j) const {
    return ids ? ids[j * kStep] & 0x7fffffff : first + j;
  }
};

// Ranges: tiles of [0, sink), then tiles of [lo, hi) cut at multiples of the tile. Lists: one
// stream of keys, so that short entries share a tile.
template <class S>
class Tiling {
 public:
  __device__ __forceinline__ Tiling(const Params& p, const Item& item) : p_(p), item_(item) {}
  __device__ __forceinline__ bool listed() const {
    return S::kKind == Kind::lists ||
           (S::kKind != Kind::ranges && S::kKind != Kind::wide && p_.index);
  }

 protected:
  __device__ __forceinline__ int first(int tile) const {
    if (tile < item_.sink_tiles) return tile * S::kKeys;
    const int c = item_.lo / S::kKeys + tile - item_.sink_tiles;
    return max(item_.lo, c * S::kKeys);
  }
  __device__ __forceinline__ int size(int tile) const {
    if (listed()) return min(S::kKeys, item_.keys - tile * S::kKeys);
    if (tile < item_.sink_tiles) return min(S::kKeys, item_.sink - tile * S::kKeys);
    const int c = item_.lo / S::kKeys + tile - item_.sink_tiles;
    return min(item_.hi, (c + 1) * S::kKeys) - max(item_.lo, c * S::kKeys);
  }

  const Params& p_;
  const Item& item_;
};

// What a tile's keys are is fetched one tile ahead of their loads and kept in a ring in shared
// memory: {id and boundary flag, where in k, where in v}, the latter counting 16 bytes.
template <class S>
class KeyTiles : public Tiling<S> {
  using Tiling<S>::p_;
  using Tiling<S>::item_;
  using Tiling<S>::first;
  using Tiling<S>::size;

 public:
  using Span = sm80::Span<4>;
  using Tiling<S>::listed;
  // `slice`: which keys of a tile are the caller's where warps are alone.
  __device__ __forceinline__ KeyTiles(const Params& p, const Item& item, int4* ring, int slice)
      : Tiling<S>(p, item),
        ring_(ring),
        thread_(S::kAlone ? threadIdx.x % 32 : threadIdx.x),
        offset_(S::kAlone ? slice * S::kOwnKeys : 0),
        in_pages_(!kDense && p.pages && !listed() && p.page_mask >= kCount - 1 &&
                  item.lo % kCount == 0) {}

  __device__ __forceinline__ bool gathered() const {
    return !kDense && (listed() || (p_.pages && !in_pages_));
  }

  // {id and boundary flag, page, row in it}: nothing is done with what was read, so that nothing
  // waits for it before store().
  __device__ __forceinline__ int4 fetch(int tile) const {
    int4 x = make_int4(0x7fffffff, 0, 0, 0);
    const int j = offset_ + thread_;
    if (!gathered() || tile >= item_.end || thread_ >= kCount || j >= size(tile)) return x;
    if (listed()) {
      const uint32_t at = uint32_t(tile) * S::kKeys + j;
      const uint32_t entry = p_.bk == 1 ? at : at / uint32_t(p_.bk);
      const uint32_t column = p_.index[item_.entries + entry];
      int row = int((column & 0x7fffffff) * p_.bk + (at - entry * p_.bk));
      if (p_.key_order)
        row =
            int(p_.key_order[item_.b * p_.key_batch + item_.h0 / p_.key_heads * p_.key_head + row]);
      x.x = row | int(column & 0x80000000), x.z = row;
    } else {
      x.x = x.z = first(tile) + j;
    }
    if (p_.pages) {
      x.y = p_.pages[item_.b * p_.pages_row + (x.z >> p_.page_shift)];
      x.z &= p_.page_mask;
    }
    return x;
  }
  __device__ __forceinline__ void store(int tile, int4 x) {
    if (!gathered() || thread_ >= kCount) return;
    const int k = int((x.y * p_.k_page + x.z * p_.k.token) / 16);
    const int v = int((x.y * p_.v_page + x.z * p_.v.token) / 16);
    slot(tile)[offset_ + thread_] = make_int4(x.x, k, v, 0);
  }

  __device__ __forceinline__ Span span(int tile, int offset, int lane) const {
    Span out;
    out.count = min(S::kOwnKeys, size(tile) - offset);
    if (!listed()) {
      out.first = first(tile) + offset;
      return out;
    }
    out.ids = &slot(tile)[offset].x;
    bool boundary = false;
    for (int j = lane; j < S::kOwnKeys; j += 32) boundary |= out.ids[4 * j] < 0;
    out.boundary = __any_sync(~0u, boundary);
    return out;
  }

  __device__ __forceinline__ void ask() const {}
  // Before the first load().
  __device__ __forceinline__ void start() {
    if (!gathered()) return;
    int4 ids[S::kStages];
#pragma unroll
    for (int n = 0; n < S::kStages; ++n) ids[n] = fetch(item_.begin + n);
#pragma unroll
    for (int n = 0; n < S::kStages; ++n) store(item_.begin + n, ids[n]);
    S::kAlone ? __syncwarp() : __syncthreads();
  }

  __device__ __forceinline__ void load(int tile, typename S::T* k_to, typename S::T* v_to,
                                       const char* k_from, const char* v_from) {
    const int64_t at = page(tile);
    copy<S::kDk, false>(tile, k_to, k_from + at * p_.k_page, p_.k.token, p_.dk);
    copy<S::kDv, true>(tile, v_to, v_from + at * p_.v_page, p_.v.token, p_.dv);
  }

  // `base` with in_pages_: of the page.
  template <int kD, bool kValues>
  __device__ __forceinline__ void copy(int tile, typename S::T* to, const char* base, int64_t token,
                                       int d) const {
    constexpr int kChunks = kD / 8, kCopies = (kCount * kChunks + kThreads - 1) / kThreads;
    // Where threads divide rows evenly, a thread's chunk is always the same.
    constexpr bool kEven = kThreads % kChunks == 0 && kCount * kChunks % kThreads == 0;
    const uint32_t address = shared_address(to);
    const int n = size(tile);
    int begin = first(tile) + offset_;
    if (in_pages_) begin &= p_.page_mask;
    const int4* const ids = slot(tile) + offset_;
    if (kEven && n >= offset_ + kCount && d == kD && consecutive(ids)) {
      const int r0 = thread_ / kChunks, c = thread_ % kChunks;
      const char* from = gathered() ? base + uint32_t(kValues ? ids->z : ids->y) * int64_t(16)
                                    : base + begin * token;
      from += r0 * token + c * 16;
#pragma unroll
      for (int i = 0; i < kCopies; ++i, from += kThreads / kChunks * token)
        copy16(address + swizzled<kD>(offset_ + r0 + i * (kThreads / kChunks), c), from);
      return;
    }
    const auto one = [&](int i, uint32_t at) {
      const int r = (i * kThreads + thread_) / kChunks, c = (i * kThreads + thread_) % kChunks;
      if (r >= kCount) return;
      const bool valid = offset_ + r < n && c * 8 < d;
      const int64_t row = gathered() ? at * int64_t(16) : (begin + r) * token;
      copy16(address + swizzled<kD>(offset_ + r, c), valid ? base + row + c * 16 : base, valid);
    };
    const auto where = [&](int i) -> uint32_t {
      const int r = min((i * kThreads + thread_) / kChunks, kCount - 1);
      return !gathered() ? 0 : kValues ? ids[r].z : ids[r].y;
    };
    uint32_t at[kCopies];  // all read before the first copy: else each waits for the one before
#pragma unroll
    for (int i = 0; i < kCopies; ++i) at[i] = where(i);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) one(i, at[i]);
  }

 private:
  // The page of the caller's keys. A warp asks for those of 32 tiles at once, 32 tiles ahead.
  __device__ __forceinline__ int page(int tile) {
    if (!in_pages_) return 0;
    const int n = tile - item_.begin;
    if (n >> 5 != block_) {
      pages_now_ = n == 0 ? ask_page(tile) : pages_next_;
      pages_next_ = ask_page(tile + 32);
      block_ = n >> 5;
    }
    return __shfl_sync(~0u, pages_now_, n & 31);
  }

  // Whether the caller's keys lie behind one another.
  __device__ __forceinline__ bool consecutive(const int4* ids) const {
    if (!gathered()) return true;
    return listed() && p_.bk % kCount == 0 && !p_.key_order &&
           (!p_.pages || (ids->x & p_.page_mask) + kCount - 1 <= p_.page_mask);
  }
  __device__ __forceinline__ int ask_page(int first_tile) const {
    const int tile = first_tile + int(threadIdx.x) % 32;
    if (tile >= item_.end) return 0;
    const int key = min(first(tile) + offset_, item_.hi - 1);
    return p_.pages[item_.b * p_.pages_row + (key >> p_.page_shift)];
  }
  __device__ __forceinline__ int4* slot(int tile) const {
    return ring_ + tile % S::kIdSlots * S::kKeys;
  }

  static constexpr bool kDense = S::kKind == Kind::wide;  // ranges of keys side by side
  // The keys that the caller copies, and the threads that share them.
  static constexpr int kCount = S::kAlone ? S::kOwnKeys : S::kKeys;
  static constexpr int kThreads = S::kAlone ? 32 : S::kThreads;

  int4* const ring_;
  const int thread_, offset_;
  const bool in_pages_;  // the caller's keys of a tile lie in one page
  int block_ = -1, pages_now_ = 0, pages_next_ = 0;
};

}  // namespace regard::cuda::sm80
