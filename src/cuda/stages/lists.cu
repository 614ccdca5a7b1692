// Set algebra of tile bits, and the lowered lists of what is left: lengths, their sums, entries.
#include "cuda/stages/lists.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kThreads = 256, kScan = 1024;

__global__ void combined_kernel(const __grid_constant__ Combined p) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= p.words) return;
  const int64_t h = blockIdx.y % p.heads, b = blockIdx.y / p.heads;
  const uint64_t x = p.a[b * p.a_batch + h * p.a_head + n];
  const uint64_t y = p.b[b * p.b_batch + h * p.b_head + n];
  p.out[blockIdx.y * p.words + n] = p.op == Combined::either ? x | y
                                    : p.op == Combined::both ? x & y
                                                             : x & ~y;
}

// One thread a word.
__global__ void stripes_kernel(const __grid_constant__ Stripes p) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= p.heads * p.rows * p.words) return;
  const int64_t w = n % p.words, r = n / p.words % p.rows, head = n / p.words / p.rows;
  const int64_t first = p.offset + r * p.block, last = min(first + p.block, p.offset + p.nq) - 1;
  uint64_t kept = 0;
  for (int64_t own = max(int64_t(0), first) / p.block; last >= 0 && own <= last / p.block; ++own) {
    const int64_t down = p.diagonals - 1 - own, shift = down & 63;
    const int64_t count = min(own + 1, p.cols) - w * 64;  // tiles of this word up to its own
    if (count <= 0) continue;
    const uint64_t* const from = p.turned + head * p.turned_words + (down >> 6) + w;
    uint64_t bits = from[0] >> shift | (shift ? from[1] << (64 - shift) : 0);
    bits |= p.columns[head * p.words + w];
    kept |= count < 64 ? bits & ((uint64_t(1) << count) - 1) : bits;
  }
  p.out[n] = kept;
}

// Bits of word w whose tiles hold a pair that is allowed.
__device__ uint32_t held(const TileLists& p, const RowKeys& keys, const uint32_t* bits, int w) {
  const int64_t cols = (keys.most + p.bk - 1) / p.bk, left = cols - int64_t(w) * 32;
  return left <= 0 ? 0 : left >= 32 ? bits[w] : bits[w] & ((1u << left) - 1);
}

// One warp a list: its length.
__global__ void lengths_kernel(const __grid_constant__ TileLists p) {
  const int64_t list = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (list >= p.lists) return;
  const RowKeys keys = row_keys(p.seen, list % p.rows, p.bq);
  const uint32_t* const bits = p.bits + list * p.words;
  int count = 0;
  for (int w = threadIdx.x % 32; w < p.words; w += 32) count += __popc(held(p, keys, bits, w));
  count = __reduce_add_sync(~0u, count);
  if (threadIdx.x % 32 == 0) p.start[list + 1] = count;
}

// One block: sums over tiles of kScan lengths, with what is before them carried along. The next
// tile's are on their way meanwhile.
__global__ void __launch_bounds__(kScan) sums_kernel(int64_t* start, int64_t n) {
  int64_t before = 0, next = threadIdx.x < n ? start[1 + threadIdx.x] : 0;
  if (threadIdx.x == 0) start[0] = 0;
  for (int64_t first = 1; first <= n; first += kScan) {
    const int64_t at = first + threadIdx.x, own = next;
    next = at + kScan <= n ? start[at + kScan] : 0;
    int64_t total;
    const int64_t ahead = before_in_block<kScan>(own, total);
    if (at <= n) start[at] = before + ahead + own;
    before += total;
  }
}

// One warp a list, a lane a tile.
__global__ void entries_kernel(const __grid_constant__ TileLists p) {
  const int64_t list = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (list >= p.lists) return;
  const RowKeys keys = row_keys(p.seen, list % p.rows, p.bq);
  const uint32_t* const bits = p.bits + list * p.words;
  const int lane = threadIdx.x % 32;
  uint32_t* out = p.index + p.start[list];
  for (int first = 0; first < p.words; first += 32) {
    const uint32_t own = first + lane < p.words ? held(p, keys, bits, first + lane) : 0;
    for (uint32_t some = __ballot_sync(~0u, own != 0); some; some &= some - 1) {
      const int w = __ffs(some) - 1;
      const uint32_t word = __shfl_sync(~0u, own, w);
      const int64_t column = int64_t(first + w) * 32 + lane;
      if (word >> lane & 1)
        out[__popc(word & ((1u << lane) - 1))] =
            entry(uint32_t(column), min((column + 1) * p.bk, p.seen.nk), keys);
      out += __popc(word);
    }
  }
}

unsigned blocks_of(int64_t lists) {
  return unsigned((lists + kThreads / 32 - 1) / (kThreads / 32));
}

}  // namespace

void launch_combined(const Combined& p, void* stream) {
  const dim3 blocks(unsigned((p.words + kThreads - 1) / kThreads), unsigned(p.batch * p.heads));
  combined_kernel<<<blocks, kThreads, 0, cudaStream_t(stream)>>>(p);
}

void launch_stripes(const Stripes& p, void* stream) {
  const int64_t words = p.heads * p.rows * p.words;
  if (words == 0) return;
  stripes_kernel<<<unsigned((words + kThreads - 1) / kThreads), kThreads, 0,
                   cudaStream_t(stream)>>>(p);
}

void launch_sums(int64_t* start, int64_t n, void* stream) {
  sums_kernel<<<1, kScan, 0, cudaStream_t(stream)>>>(start, n);
}

void launch_tile_starts(const TileLists& p, void* stream) {
  lengths_kernel<<<blocks_of(p.lists), kThreads, 0, cudaStream_t(stream)>>>(p);
  launch_sums(p.start, p.lists, stream);
}

void launch_tile_lists(const TileLists& p, void* stream) {
  entries_kernel<<<blocks_of(p.lists), kThreads, 0, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
