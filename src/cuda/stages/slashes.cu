// MInference's lists on the device: the best columns and diagonals of each head, and what every row
// of 64 queries reads of them. The rules are those of stages/lists.h and
// stages/lists/vertical_slash.cc.
#include "cuda/stages/lists.cuh"
#include "cuda/stages/slashes.h"

namespace regard::cuda::stages {
namespace {

constexpr int kThreads = 1024, kDigits = 256, kRows = 4;  // kRows: of a block, a warp each
constexpr int kCopies = 4;  // of the counts: lanes beside each other often have one digit
constexpr int kAtOnce = 8, kWalkers = 128;

// Greater for a better score; 0 for what is never kept.
__device__ uint32_t rank_of(float score, bool forced) {
  if (forced) return ordered(kInf);
  return score != score || score == -kInf ? 0 : ordered(score + 0.0f);  // -0 becomes 0: they tie
}

// Of 256 counts, from the highest digit down: the digit that the `need`-th falls into, 0 where
// there are fewer, and how many are needed of it. By a warp; lane l looks at eight digits.
struct Crossing {
  int digit, need, count;
};
__device__ Crossing crossing(const int (*counts)[kCopies], int need) {
  const int lane = threadIdx.x % 32;
  int own[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    own[i] = 0;
#pragma unroll
    for (int copy = 0; copy < kCopies; ++copy) own[i] += counts[kDigits - 1 - 8 * lane - i][copy];
    sum += own[i];
  }
  int up_to = sum;
#pragma unroll
  for (int width = 1; width < 32; width *= 2) {
    const int y = __shfl_up_sync(~0u, up_to, width);
    if (lane >= width) up_to += y;
  }
  const uint32_t there = __ballot_sync(~0u, up_to >= need);
  const int at = there ? __ffs(there) - 1 : 31;
  Crossing c = {kDigits - 1 - 8 * lane, need - (up_to - sum), own[0]};
#pragma unroll
  for (int i = 1; i < 8; ++i)
    if (c.count < c.need && c.digit == kDigits - 8 * lane - i)
      c = {c.digit - 1, c.need - c.count, own[i]};
  return {__shfl_sync(~0u, c.digit, at), __shfl_sync(~0u, c.need, at),
          __shfl_sync(~0u, c.count, at)};
}

// One block an array of a head: the `wanted` best, ties to the lower index, as bits.
__global__ void __launch_bounds__(kThreads) best_kernel(const __grid_constant__ Slashes p) {
  __shared__ int counts[kDigits][kCopies];
  __shared__ Crossing found;
  const int head = blockIdx.x / 2;
  const bool slash = blockIdx.x % 2;
  const float* const x =
      slash ? p.slash + int64_t(head) * p.offsets : p.vertical + int64_t(head) * p.nk;
  const int n = slash ? p.length : p.keys, forced = slash ? p.forced_diagonals : p.forced_columns;
  const int wanted = slash ? p.diagonals : p.columns;
  uint32_t* const bits = slash ? p.chosen_diagonals + int64_t(head) * p.diagonal_words
                               : p.chosen + int64_t(head) * p.words;
  // Ranks of kAtOnce scores of a thread, read together.
  const auto ranks = [&](int first, uint32_t(&rank)[kAtOnce]) {
    float score[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kThreads + threadIdx.x;
      score[i] = at < n ? x[at] : -kInf;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kThreads + threadIdx.x;
      rank[i] = at < n ? rank_of(score[i], at < forced) : 0;
    }
  };

  // The worst rank that is kept, digit by digit, and how many of that rank.
  uint32_t least = 0, known = 0;
  int need = wanted, ties = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < kDigits * kCopies; d += kThreads) (&counts[0][0])[d] = 0;
    __syncthreads();
    for (int first = 0; first < n; first += kAtOnce * kThreads) {
      uint32_t rank[kAtOnce];
      ranks(first, rank);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if ((rank[i] & known) == least && rank[i] != 0)
          atomicAdd(&counts[rank[i] >> shift & 255][threadIdx.x % kCopies], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const Crossing c = crossing(counts, need);
      if (threadIdx.x == 0) found = c;
    }
    __syncthreads();
    least |= uint32_t(found.digit) << shift, known |= 255u << shift;
    need = found.need, ties = found.count;
  }
  // Fewer than wanted: the walk ended at rank 0, which nothing has.
  if (wanted == 0) return;
  int before = 0;
  for (int first = 0; first < n; first += kAtOnce * kThreads) {
    uint32_t rank[kAtOnce];
    ranks(first, rank);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      bool keep = rank[i] != 0 && rank[i] >= least;
      if (ties > need) {  // not all of that rank
        int equal;
        const bool tie = rank[i] == least && rank[i] != 0;
        const int ahead = before + before_in_block<kThreads>(int(tie), equal);
        keep &= !tie || ahead < need;
        before += equal;
      }
      const uint32_t word = __ballot_sync(~0u, keep);
      const int at = first + i * kThreads + threadIdx.x;
      if (threadIdx.x % 32 == 0 && at < n) bits[at / 32] = word;
    }
  }
}

// One thread a row: its ranges, from far to near. A range grows by the nearest diagonal that
// reaches past its end, so diagonals are bits, with a bit for every word that holds one.
__global__ void __launch_bounds__(kWalkers) ranges_kernel(const __grid_constant__ Slashes p) {
  extern __shared__ uint32_t memory[];
  const int words = p.diagonal_words, head = p.first + blockIdx.y;
  uint32_t* const held = memory;
  uint32_t* const some = memory + words;
  const uint32_t* const from = p.chosen_diagonals + int64_t(head) * words;
  for (int first = 0; first < words; first += kWalkers) {
    const int w = first + threadIdx.x;
    const uint32_t word = w < words ? from[w] : 0, full = __ballot_sync(~0u, word != 0);
    if (w < words) held[w] = word;
    if (threadIdx.x % 32 == 0 && w < words) some[w / 32] = full;
  }
  __syncthreads();
  const int row = int(blockIdx.x * kWalkers + threadIdx.x);
  if (row >= p.rows) return;
  // The largest diagonal below `limit`; -1: none.
  const auto below = [&](int limit) {
    const int i = min(limit, p.length) - 1;
    if (i < 0) return -1;
    int w = i / 32;
    uint32_t bits = held[w] & ~0u >> (31 - i % 32);
    if (bits == 0) {
      int s = w / 32;
      uint32_t filled = some[s] & ((1u << w % 32) - 1);
      while (filled == 0) {
        if (--s < 0) return -1;
        filled = some[s];
      }
      w = s * 32 + 31 - __clz(int(filled));
      bits = held[w];
    }
    return w * 32 + 31 - __clz(int(bits));
  };
  const int end = p.offset + (row + 1) * kSlashBlock;
  int2* const out = p.ranges + (int64_t(blockIdx.y) * p.rows + row) * p.most;
  int size = 0, offset = below(end);
  if (offset >= 0) {
    const int stop = max(end - offset, kSlashBlock);
    int2 open = make_int2(stop - kSlashBlock, stop);
    while ((offset = below(end - open.y)) >= 0) {
      if (end - offset > open.y + kSlashBlock) {
        out[size++] = open;
        open = make_int2(end - offset - kSlashBlock, end - offset);
      } else {
        open.y += kSlashBlock;
      }
    }
    out[size++] = open;
  }
  p.range_count[int64_t(blockIdx.y) * p.rows + row] = size;
}

// The sum over the lanes before this one; `total` of all lanes.
__device__ int before_in_warp(int x, int& total) {
  const int sum = up_to_in_warp(x);
  total = __shfl_sync(~0u, sum, 31);
  return sum - x;
}

// One warp a row: whole tiles inside a range, and single keys. kWrite: the keys; else the tiles,
// the number of keys, how many of these some query does not see, and the row's pieces.
template <bool kWrite>
__global__ void __launch_bounds__(kRows * 32) rows_kernel(const __grid_constant__ Slashes p) {
  extern __shared__ uint32_t memory[];
  const int row = blockIdx.x * kRows + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= p.rows) return;
  const int head = p.first + blockIdx.y;
  const int visible = int(row_keys({p.nq, p.nk, p.offset, true}, row, kSlashBlock).most);
  const RowKeys keys = row_keys({p.nq, p.nk, p.offset, p.causal}, row, kSlashBlock);
  const int tiles = (visible + kSlashBlock - 1) / kSlashBlock, padded = tiles * kSlashBlock;
  uint32_t* const held = memory + threadIdx.x / 32 * p.words;
  for (int w = lane; w < 2 * tiles; w += 32) held[w] = 0;
  __syncwarp();
  const int64_t at = int64_t(blockIdx.y) * p.rows + row;
  const int2* const ranges = p.ranges + at * p.most;
  const int size = p.range_count[at];
  for (int n = lane; n < size; n += 32) {
    const int2 r = ranges[n];
    const int stop = r.y >= visible ? padded : r.y;  // keys that no row sees are free
    for (int w = r.x / 32; w * 32 < stop; ++w) {
      const uint32_t low = r.x > w * 32 ? ~0u << (r.x - w * 32) : ~0u;
      const uint32_t high = stop - w * 32 < 32 ? (1u << (stop - w * 32)) - 1 : ~0u;
      atomicOr(&held[w], low & high);
    }
  }
  __syncwarp();
  const int last = size > 0 ? ranges[size - 1].x : 0;  // keys past the last range are dropped
  const auto below = [](int limit, int w) {
    return limit - w * 32 >= 32 ? ~0u : limit <= w * 32 ? 0u : (1u << (limit - w * 32)) - 1;
  };
  const uint32_t* const chosen = p.chosen + int64_t(head) * p.words;
  const int64_t list = int64_t(head) * p.rows + row;
  uint32_t* out = kWrite ? p.index + p.start[list] : nullptr;
  int count = 0, cut = 0, beside = 0;  // beside: single keys outside ranges
  for (int first = 0; first < 2 * tiles; first += 32) {
    const int w = first + lane;
    uint32_t own = w < 2 * tiles ? held[w] : 0, single = 0;
    const uint32_t other = __shfl_xor_sync(~0u, own, 1);
    const bool tile = own == ~0u && other == ~0u;
    if (w < 2 * tiles) {
      const uint32_t rest = chosen[w] & ~own & below(last, w);
      single = ((tile ? 0u : own) & below(visible, w)) | rest;
      if constexpr (!kWrite) {
        beside += __popc(rest);
        held[w] = rest;  // from here on: this lane alone reads it
      }
    }
    if constexpr (!kWrite) {
      count += __popc(single);
      cut += __popc(single & ~below(int(keys.least), w));
      const uint32_t both = __ballot_sync(~0u, tile);  // each tile twice
      uint32_t some = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) some |= (both >> 2 * i & 1) << i;
      if (lane == 0)
        reinterpret_cast<uint16_t*>(p.tiles + list * p.tile_words)[first / 32] = uint16_t(some);
    } else {
      for (uint32_t left = __ballot_sync(~0u, single != 0); left; left &= left - 1) {
        const int from = __ffs(left) - 1;
        const uint32_t word = __shfl_sync(~0u, single, from);
        const int key = (first + from) * 32 + lane;
        if (word >> lane & 1)
          out[__popc(word & ((1u << lane) - 1))] = entry(uint32_t(key), key + 1, keys);
        out += __popc(word);
      }
    }
  }
  if constexpr (!kWrite) {
    count = __reduce_add_sync(~0u, count), cut = __reduce_add_sync(~0u, cut);
    if (lane == 0) {
      p.start[list + 1] = count;
      if (cut > 0) atomicAdd(reinterpret_cast<unsigned long long*>(p.cut), uint64_t(cut));
    }
    if (!p.piece_index) return;
    // Ranges are pieces as they are, whole or up to what the row sees.
    const auto pieces_of = [&](const int2& r) {
      return max(0, (min(r.y, visible) - r.x + kSlashBlock - 1) / kSlashBlock);
    };
    int pieces = 0;
    for (int n = lane; n < size; n += 32) pieces += pieces_of(ranges[n]);
    pieces = __reduce_add_sync(~0u, pieces), beside = __reduce_add_sync(~0u, beside);
    const int64_t piece_begin = list * p.most, rest_begin = list * p.columns;
    if (lane == 0) {
      p.piece_start[2 * list] = piece_begin, p.piece_start[2 * list + 1] = piece_begin + pieces;
      p.rest_start[2 * list] = rest_begin, p.rest_start[2 * list + 1] = rest_begin + beside;
    }
    uint32_t *piece = p.piece_index + piece_begin, *rest = p.rest_index + rest_begin;
    for (int first = 0, total; first < size; first += 32, piece += total) {
      const int2 r = first + lane < size ? ranges[first + lane] : make_int2(0, 0);
      const int own = first + lane < size ? pieces_of(r) : 0, ahead = before_in_warp(own, total);
      for (int n = 0; n < own; ++n) {
        const int key = r.x + n * kSlashBlock;
        piece[ahead + n] = entry(uint32_t(key), key + kSlashBlock, keys);
      }
    }
    for (int first = 0, total; first < 2 * tiles; first += 32, rest += total) {
      uint32_t word = first + lane < 2 * tiles ? held[first + lane] : 0;
      int at = before_in_warp(__popc(word), total);
      for (; word; word &= word - 1) rest[at++] = uint32_t((first + lane) * 32 + __ffs(word) - 1);
    }
  }
}

template <bool kWrite>
void launch_rows(Slashes p, void* stream) {
  const int bytes = kRows * p.words * 4;
  if (bytes > 48 << 10)
    cudaFuncSetAttribute(rows_kernel<kWrite>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const cudaStream_t s = cudaStream_t(stream);
  for (int first = 0; first < p.heads; first += p.together) {
    const unsigned heads = unsigned(p.heads - first < p.together ? p.heads - first : p.together);
    p.first = first;
    if (!p.have_ranges) {
      const int walk = 4 * (p.diagonal_words + (p.diagonal_words + 31) / 32);
      ranges_kernel<<<dim3(unsigned(p.rows + kWalkers - 1) / kWalkers, heads), kWalkers, walk, s>>>(
          p);
    }
    rows_kernel<kWrite>
        <<<dim3(unsigned(p.rows + kRows - 1) / kRows, heads), kRows * 32, bytes, s>>>(p);
  }
}

}  // namespace

void launch_best_slashes(const Slashes& p, void* stream) {
  best_kernel<<<unsigned(2 * p.heads), kThreads, 0, cudaStream_t(stream)>>>(p);
}

void launch_slash_tiles(const Slashes& p, void* stream) { launch_rows<false>(p, stream); }

void launch_slash_keys(const Slashes& p, void* stream) { launch_rows<true>(p, stream); }

}  // namespace regard::cuda::stages
