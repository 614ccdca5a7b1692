// MInference's lists on the device: the best columns and diagonals of each head, and what every row
// of 64 queries reads of them. The rules are those of stages/lists.h and
// stages/lists/vertical_slash.cc.
#include "cuda/stages/lists.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kThreads = 1024, kDigits = 256, kRows = 4;  // kRows: of a block, a warp each
constexpr int kFar = 1 << 30;

// Greater for a better score; 0 for what is never kept.
__device__ uint32_t rank_of(float score, bool forced) {
  if (forced) return ordered(kInf);
  return score != score || score == -kInf ? 0 : ordered(score + 0.0f);  // -0 becomes 0: they tie
}

// One block an array of a head: the `wanted` best, ties to the lower index, as bits of the columns
// or as an ascending list of the diagonals.
__global__ void __launch_bounds__(kThreads) best_kernel(const __grid_constant__ Slashes p) {
  __shared__ int counts[kDigits];
  __shared__ uint32_t found;
  __shared__ int still;
  const int head = blockIdx.x / 2;
  const bool slash = blockIdx.x % 2;
  const float* const x =
      slash ? p.slash + int64_t(head) * p.offsets : p.vertical + int64_t(head) * p.nk;
  const int n = slash ? p.length : p.keys, forced = slash ? p.forced_diagonals : p.forced_columns;
  const int wanted = slash ? p.diagonals : p.columns;

  // The worst rank that is kept, digit by digit, and how many of that rank.
  uint32_t least = 0, known = 0;
  int need = wanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < kDigits; d += kThreads) counts[d] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const uint32_t rank = rank_of(x[i], i < forced);
      if ((rank & known) == least && rank != 0) atomicAdd(&counts[rank >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int left = need, d = kDigits - 1;
      while (d > 0 && counts[d] < left) left -= counts[d--];
      found = uint32_t(d), still = left;
    }
    __syncthreads();
    least |= found << shift, known |= 255u << shift, need = still;
  }
  // Fewer than wanted: the walk ended at rank 0, which nothing has.
  uint32_t* const bits = p.chosen + int64_t(head) * p.words;
  int* const list = p.list + int64_t(head) * p.diagonals;
  int ties = 0, kept = 0;
  for (int first = 0; first < n; first += kThreads) {
    const int i = first + threadIdx.x;
    const uint32_t rank = i < n ? rank_of(x[i], i < forced) : 0;
    int equal, more;
    const bool tie = rank == least && rank != 0;
    const int tie_before = ties + before_in_block<kThreads>(int(tie), equal);
    const bool keep = wanted > 0 && rank != 0 && (rank > least || (tie && tie_before < need));
    ties += equal;
    if (slash) {
      const int at = kept + before_in_block<kThreads>(int(keep), more);
      if (keep) list[at] = i;
      kept += more;
    } else {
      const uint32_t word = __ballot_sync(~0u, keep);
      if (threadIdx.x % 32 == 0 && i < p.words * 32) bits[i / 32] = word;
    }
  }
  if (slash && threadIdx.x == 0) p.list_size[head] = kept;
}

// One thread a row: its ranges, from far to near.
__global__ void ranges_kernel(const __grid_constant__ Slashes p) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= p.rows) return;
  const int head = p.first + blockIdx.y;
  const int* const list = p.list + int64_t(head) * p.diagonals;
  const int end = p.offset + (row + 1) * kSlashBlock;
  int2* const out = p.ranges + (int64_t(blockIdx.y) * p.rows + row) * p.most;
  int size = 0;
  int2 open = make_int2(0, -kFar);
#pragma unroll 8
  for (int m = p.list_size[head] - 1; m >= 0; --m) {
    const int offset = list[m];
    const bool counts = offset < end;
    const int stop = max(end - offset, kSlashBlock);
    const bool fresh = counts && stop > open.y + kSlashBlock;
    if (fresh && open.y > 0) out[size++] = open;
    if (counts && !fresh && stop > open.y) open.y += kSlashBlock;
    if (fresh) open = make_int2(stop - kSlashBlock, stop);
  }
  if (open.y > 0) out[size++] = open;
  p.range_count[int64_t(blockIdx.y) * p.rows + row] = size;
}

// One warp a row: whole tiles inside a range, and single keys. kWrite: the keys; else the tiles,
// the number of keys, and how many of these some query does not see.
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
  int count = 0, cut = 0;
  for (int first = 0; first < 2 * tiles; first += 32) {
    const int w = first + lane;
    uint32_t own = w < 2 * tiles ? held[w] : 0, single = 0;
    const uint32_t beside = __shfl_xor_sync(~0u, own, 1);
    const bool tile = own == ~0u && beside == ~0u;
    if (w < 2 * tiles) {
      single = ((tile ? 0u : own) & below(visible, w)) | (chosen[w] & ~own & below(last, w));
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
    if (!p.have_ranges) ranges_kernel<<<dim3(unsigned(p.rows + 31) / 32, heads), 32, 0, s>>>(p);
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
