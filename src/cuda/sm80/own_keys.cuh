// The keys of a warp that copies for itself. Layer: cuda.
//
// What a tile's keys are (entries of a list, pages) arrives with the keys of an earlier tile, in
// the same group of asynchronous copies, so that nothing waits for it: the pages of a tile with the
// tile kAhead before, and the entries that they are looked up by with the one kAhead before that.
#pragma once
#include <bit>

#include "cuda/sm80/keys.cuh"

namespace regard::cuda::sm80 {

template <class S>
class OwnKeys : public Tiling<S> {
  using Tiling<S>::p_;
  using Tiling<S>::item_;
  using Tiling<S>::first;
  using Tiling<S>::size;
  static constexpr int kCount = S::kOwnKeys, kAhead = S::kStages - 1;
  static constexpr int kIdSlots = std::bit_ceil(3u * kAhead + 1);
  static constexpr int kPageSlots = std::bit_ceil(kAhead + 1u);
  static_assert(S::kAlone && kIdSlots + kPageSlots <= 4 * S::kIdSlots);  // ring: S::kIdSlots int4

 public:
  using Span = sm80::Span<1>;
  using Tiling<S>::listed;
  // `slice`: which keys of a tile are the warp's.
  __device__ __forceinline__ OwnKeys(const Params& p, const Item& item, int4* ring, int slice)
      : Tiling<S>(p, item),
        lane_(threadIdx.x % 32),
        offset_(slice * kCount),
        ids_(reinterpret_cast<int*>(ring) + slice * kCount),
        pages_(ids_ + kIdSlots * S::kKeys),
        in_pages_(p.page_mask >= kCount - 1 && item.lo % kCount == 0) {}

  // Lists are the plan's own: asked for while the kernel ahead still runs.
  __device__ __forceinline__ void ask() const {
    for (int n = 0; n < 2 * kAhead; ++n) ask_ids(item_.begin + n);
  }
  // Before the first load().
  __device__ __forceinline__ void start() const {
    if (listed()) arrive();
    for (int n = 0; n < kAhead; ++n) settle(item_.begin + n);
    p_.pages ? arrive() : __syncwarp();
  }

  // Tiles one after the other, each after a copy_wait() for the one kAhead before.
  __device__ __forceinline__ void load(int tile, typename S::T* k_to, typename S::T* v_to,
                                       const char* k_from, const char* v_from) const {
    const int count = size(tile) - offset_;
    const int id = listed() ? ids(tile)[0] & 0x7fffffff : first(tile) + offset_;
    const int row = id & p_.page_mask;
    const bool run = listed() ? p_.bk % kCount == 0 && row + (kCount - 1) <= p_.page_mask
                              : !p_.pages || in_pages_;
    if (run) {
      const int64_t page = p_.pages ? pages(tile)[0] : 0;
      copy_run<S::kDk>(k_to, k_from + page * p_.k_page + row * p_.k.token, p_.k.token, count);
      copy_run<S::kDv>(v_to, v_from + page * p_.v_page + row * p_.v.token, p_.v.token, count);
    } else {
      uint32_t k_at = 0, v_at = 0;  // of the lane's key, counting 16 bytes
      if (const int j = lane_ % kCount; j < count) {
        const uint32_t own = (listed() ? ids(tile)[j] & 0x7fffffff : id + j) & p_.page_mask;
        k_at = own * uint32_t(p_.k.token >> 4), v_at = own * uint32_t(p_.v.token >> 4);
        if (p_.pages) {
          const uint32_t page = pages(tile)[j];
          k_at += page * uint32_t(p_.k_page >> 4), v_at += page * uint32_t(p_.v_page >> 4);
        }
      }
      copy_each<S::kDk>(k_to, k_from, k_at, count);
      copy_each<S::kDv>(v_to, v_from, v_at, count);
    }
    settle(tile + kAhead);
    ask_ids(tile + 2 * kAhead);
  }

  __device__ __forceinline__ Span span(int tile, int, int) const {
    Span out;
    out.count = min(kCount, size(tile) - offset_);
    if (!listed()) {
      out.first = first(tile) + offset_;
      return out;
    }
    out.ids = ids(tile);
    out.boundary = __any_sync(~0u, out.ids[lane_ % kCount] < 0);
    return out;
  }

 private:
  __device__ __forceinline__ int* ids(int tile) const {
    return ids_ + (tile & (kIdSlots - 1)) * S::kKeys;
  }
  __device__ __forceinline__ int* pages(int tile) const {
    return pages_ + (tile & (kPageSlots - 1)) * S::kKeys;
  }
  static __device__ __forceinline__ void arrive() {
    copy_commit();
    copy_wait<0>();
    __syncwarp();
  }

  __device__ __forceinline__ bool owns(int tile) const {
    return tile < item_.end && lane_ < min(kCount, size(tile) - offset_);
  }
  __device__ __forceinline__ uint32_t place(int tile) const {
    return uint32_t(tile) * S::kKeys + offset_ + lane_;
  }
  __device__ __forceinline__ void ask_ids(int tile) const {
    if (!listed() || !owns(tile)) return;
    const uint32_t at = place(tile);
    const uint32_t entry = p_.bk == 1 ? at : at / uint32_t(p_.bk);
    copy4(shared_address(ids(tile) + lane_), p_.index + item_.entries + entry);
  }
  // The tile's entries are here: they become keys, and their pages are asked for.
  __device__ __forceinline__ void settle(int tile) const {
    if ((!p_.pages && (!listed() || p_.bk == 1)) || !owns(tile)) return;
    int id = first(tile) + offset_ + lane_;
    if (listed()) {
      id = ids(tile)[lane_];
      if (p_.bk > 1) {
        const int key = (id & 0x7fffffff) * p_.bk + int(place(tile) % uint32_t(p_.bk));
        id = ids(tile)[lane_] = key | (id & int(0x80000000));
      }
    }
    if (p_.pages)
      copy4(shared_address(pages(tile) + lane_),
            p_.pages + item_.b * p_.pages_row + ((id & 0x7fffffff) >> p_.page_shift));
  }

  // Keys behind one another.
  template <int kD>
  __device__ __forceinline__ void copy_run(typename S::T* to, const char* from, int64_t token,
                                           int count) const {
    constexpr int kChunks = kD / 8, kRows = 32 / kChunks;
    const uint32_t address = shared_address(to);
    const int r0 = lane_ / kChunks, c = lane_ % kChunks;
    from += r0 * token + c * 16;
    if (count >= kCount) {
#pragma unroll
      for (int r = r0; r < r0 + kCount; r += kRows, from += kRows * token)
        copy16(address + swizzled<kD>(offset_ + r, c), from);
    } else {
#pragma unroll 1
      for (int r = r0; r < r0 + kCount; r += kRows, from += kRows * token)
        copy16(address + swizzled<kD>(offset_ + r, c), from, r < count);
    }
  }
  template <int kD>
  __device__ __forceinline__ void copy_each(typename S::T* to, const char* base, uint32_t own,
                                            int count) const {
    constexpr int kChunks = kD / 8, kRows = 32 / kChunks;
    const uint32_t address = shared_address(to);
    const int r0 = lane_ / kChunks, c = lane_ % kChunks;
    base += c * 16;
    if (S::kKind == Kind::lists && count >= kCount) {
#pragma unroll
      for (int r = 0; r < kCount; r += kRows)
        copy16(address + swizzled<kD>(offset_ + r0 + r, c),
               base + __shfl_sync(~0u, own, r0 + r) * uint64_t(16));
    } else {
#pragma unroll 1
      for (int r = r0; r < r0 + kCount; r += kRows)
        copy16(address + swizzled<kD>(offset_ + r, c),
               base + __shfl_sync(~0u, own, r) * uint64_t(16), r < count);
    }
  }

  const int lane_, offset_;
  int *const ids_, *const pages_;
  const bool in_pages_;  // the keys of a slice lie in one page
};

}  // namespace regard::cuda::sm80
