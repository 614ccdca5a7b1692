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
struct Span {
  int first = 0, count = 0;   // first: of a run
  bool boundary = true;       // lists: some pair may be forbidden
  const int2* ids = nullptr;  // lists
  __device__ __forceinline__ int id(int j) const { return ids ? ids[j].x & 0x7fffffff : first + j; }
};

// Ranges: tiles of [0, sink), then tiles of [lo, hi) cut at multiples of the tile. Lists: one
// stream of keys, so that short entries share a tile. What a tile's keys are is fetched one tile
// ahead of their loads and kept in a ring in shared memory: {id and boundary flag, row of the
// pool}.
template <class S>
class KeyTiles {
 public:
  __device__ __forceinline__ KeyTiles(const Params& p, const Item& item, int2* ring)
      : p_(p), item_(item), ring_(ring) {}

  __device__ __forceinline__ bool gathered() const { return p_.index || p_.pages; }

  __device__ __forceinline__ int2 fetch(int tile, int thread) const {
    int2 x = make_int2(0x7fffffff, 0);
    if (!gathered() || tile >= item_.end || thread >= size(tile)) return x;
    if (p_.index) {
      const uint32_t at = uint32_t(tile) * S::kKeys + thread;
      const uint32_t entry = at / uint32_t(p_.bk);
      const uint32_t column = p_.index[item_.entries + entry];
      x.x = int((column & 0x7fffffff) * p_.bk + (at - entry * p_.bk));
      x.y = x.x;
      x.x |= column & 0x80000000;
    } else {
      x.x = x.y = first(tile) + thread;
    }
    if (p_.pages) {
      const int32_t page = p_.pages[item_.b * p_.pages_row + (x.y >> p_.page_shift)];
      x.y = page << p_.page_shift | (x.y & p_.page_mask);
    }
    return x;
  }
  __device__ __forceinline__ void store(int tile, int2 x, int thread) {
    if (gathered() && thread < S::kKeys) slot(tile)[thread] = x;
  }

  __device__ __forceinline__ Span span(int tile, int offset, int lane) const {
    Span out;
    out.count = min(S::kOwnKeys, size(tile) - offset);
    if (!p_.index) {
      out.first = first(tile) + offset;
      return out;
    }
    out.ids = slot(tile) + offset;
    bool boundary = false;
    for (int j = lane; j < S::kOwnKeys; j += 32) boundary |= out.ids[j].x < 0;
    out.boundary = __any_sync(~0u, boundary);
    return out;
  }

  template <int kD>
  __device__ __forceinline__ void load(int tile, typename S::T* to, const char* base, int64_t page,
                                       int64_t token, int d, int thread) const {
    constexpr int kChunks = kD / 8;
    const uint32_t address = shared_address(to);
    const int n = size(tile), begin = first(tile);
    const bool ring = gathered();
#pragma unroll
    for (int c0 = 0; c0 < S::kKeys * kChunks; c0 += S::kThreads) {
      const int c = c0 + thread, r = c / kChunks, chunk = c % kChunks;
      if (S::kKeys * kChunks % S::kThreads != 0 && r >= S::kKeys) break;
      const bool valid = r < n && chunk * 8 < d;
      const int row = ring ? slot(tile)[r].y : begin + r;
      const char* from =
          base + (row >> p_.page_shift) * page + (row & p_.page_mask) * token + chunk * 16;
      copy16(address + swizzled<kD>(r, chunk), valid ? from : base, valid);
    }
  }

 private:
  __device__ __forceinline__ int2* slot(int tile) const {
    return ring_ + tile % S::kIdSlots * S::kKeys;
  }
  __device__ __forceinline__ int first(int tile) const {
    if (tile < item_.sink_tiles) return tile * S::kKeys;
    const int c = item_.lo / S::kKeys + tile - item_.sink_tiles;
    return max(item_.lo, c * S::kKeys);
  }
  __device__ __forceinline__ int size(int tile) const {
    if (p_.index) return min(S::kKeys, item_.keys - tile * S::kKeys);
    if (tile < item_.sink_tiles) return min(S::kKeys, item_.sink - tile * S::kKeys);
    const int c = item_.lo / S::kKeys + tile - item_.sink_tiles;
    return min(item_.hi, (c + 1) * S::kKeys) - max(item_.lo, c * S::kKeys);
  }

  const Params& p_;
  const Item& item_;
  int2* const ring_;
};

}  // namespace regard::cuda::sm80
