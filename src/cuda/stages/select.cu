// The selector where every row of tiles competes by itself; its rules are those of
// stages/select.h, its arithmetic that of stages/select/select.cc.
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kOwn = 8;                          // words that a thread sorts in its registers
constexpr int kRows = 8, kThreads = kRows * 32;  // of a block of short rows
constexpr uint64_t kNever = ~uint64_t(0);        // sorts behind every candidate

__device__ bool scored(float x) { return !(x != x) && x != -kInf; }

// Ascending words are descending scores, then ascending indices.
__device__ uint64_t word_of(float score, int index) {
  return uint64_t(~ordered(score + 0.0f)) << 32 | uint32_t(index);  // -0 becomes 0: they tie
}
__device__ float score_of(uint64_t word) { return unordered(~uint32_t(word >> 32)); }

__device__ void order(uint64_t& a, uint64_t& b, bool up) {
  const bool turn = (a > b) == up;
  const uint64_t low = turn ? b : a;
  b = turn ? a : b, a = low;
}

// Bitonic, over the words of a row's `threads` threads: word i of thread t is number kOwn t + i.
// Words of other warps come through `memory`, of which each thread has kOwn words.
__device__ void sort(uint64_t (&x)[kOwn], int thread, int threads, uint64_t* memory) {
  const auto near = [&](auto up) {  // within a thread
#pragma unroll
    for (int step = kOwn / 2; step > 0; step /= 2)
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
        if ((i & step) == 0) order(x[i], x[i | step], up(i));
  };
#pragma unroll
  for (int width = 2; width < kOwn; width *= 2)
#pragma unroll
    for (int step = width / 2; step > 0; step /= 2)
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
        if ((i & step) == 0) order(x[i], x[i | step], (i & width) == 0);
  near([&](int) { return (thread & 1) == 0; });
  for (int width = 2; width <= threads; width *= 2) {  // counted in threads
    const bool up = (thread & width) == 0;
    for (int step = width / 2; step > 0; step /= 2) {
      const bool least = ((thread & step) == 0) == up;
      if (step >= 32) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kOwn; ++i) memory[i * threads + thread] = x[i];
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const uint64_t other =
            step >= 32 ? memory[i * threads + (thread ^ step)] : __shfl_xor_sync(~0u, x[i], step);
        x[i] = (other < x[i]) == least ? other : x[i];
      }
    }
    near([&](int) { return up; });
  }
}

// One thread: how many of the sorted words are kept, taken as Competition::run does.
template <class Word>
__device__ int taken(const Select& p, const Word& word, double total, double sum, int64_t count,
                     double amount) {
  const double goal = amount * total;
  const double floor_or_ceil = p.ceil ? ceil(amount) : floor(amount);
  const int64_t most = floor_or_ceil < 0      ? 0
                       : floor_or_ceil > 9e18 ? INT64_MAX
                                              : int64_t(floor_or_ceil);
  int64_t extra = goal > 0 ? p.extra : 0;
  int n = 0;
  uint64_t next = word(0);
  for (; next != kNever && count < p.max_count; ++n, ++count) {
    const double s = double(score_of(next));
    next = n + 1 < p.size ? word(n + 1) : kNever;
    const bool inside = p.cut == Select::top_k ? count < most
                        : p.cut == Select::coverage
                            ? (p.keep_crossing ? sum < goal : sum + s <= goal)
                            : s > amount;
    if (!inside && count >= p.min_count && !(p.cut == Select::coverage && extra-- > 0)) break;
    sum += s;
  }
  return n;
}

// Several rows a block where they are short, the warps of a row side by side.
__global__ void __launch_bounds__(kMostSelected / kOwn)
    select_kernel(const __grid_constant__ Select p) {
  extern __shared__ uint64_t memory[];  // words, scores and bits of each row
  const int threads = p.size / kOwn, together = int(blockDim.x) / threads, words = 2 * p.words;
  const int pitch = p.size + 1;  // a lane a row reads other banks
  float* const scores = reinterpret_cast<float*>(memory + together * pitch);
  uint32_t* const bits = reinterpret_cast<uint32_t*>(scores + together * pitch);
  __shared__ double totals[kRows], sums[kRows];
  __shared__ int counts[kRows], kept[kRows];
  const int64_t all = p.batch * p.heads * p.rows, first = int64_t(blockIdx.x) * together;
  const int here = int(min(int64_t(together), all - first));

  const auto forced_of = [&](int64_t row) {
    const int64_t r = row % p.rows, h = row / p.rows % p.heads, b = row / p.rows / p.heads;
    const int64_t head = (p.forced_batch == 1 ? 0 : b) * p.forced_heads;
    return reinterpret_cast<const uint32_t*>(p.forced) +
           ((head + (p.forced_heads == 1 ? 0 : h)) * p.rows + r) * words;
  };
  for (int i = threadIdx.x; i < here * words; i += blockDim.x)
    bits[i] = p.forced ? forced_of(first + i / words)[i % words] : 0;
  __syncthreads();

  const int own = int(threadIdx.x) / threads, thread = int(threadIdx.x) % threads;
  const bool live = own < here;
  uint64_t x[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int c = i * threads + thread;
    const bool inside = live && c < p.cols;
    const float s = inside ? p.scores[(first + own) * p.cols + c] : -kInf;
    const bool taken_first =
        inside && p.forced_counts && (bits[own * words + c / 32] >> c % 32 & 1);
    scores[own * pitch + c] = s;
    x[i] = scored(s) && !taken_first ? word_of(s, c) : kNever;
  }
  __syncthreads();
  if (threadIdx.x < here) {
    const float* const s = scores + threadIdx.x * pitch;
    double total = 0;  // + 0 changes nothing, and leaves no branch in the chain
#pragma unroll 8
    for (int i = 0; i < p.cols; ++i) total += scored(s[i]) ? double(s[i]) : 0.0;
    totals[threadIdx.x] = total;
  } else if (threadIdx.x >= 32 && threadIdx.x < 32 + here) {
    const int row = threadIdx.x - 32;
    double sum = 0;
    int n = 0;
    for (int w = 0; p.forced && p.forced_counts && w < words; ++w)
      for (uint32_t left = bits[row * words + w]; left; left &= left - 1, ++n) {
        const float s = scores[row * pitch + w * 32 + __ffs(left) - 1];
        if (scored(s)) sum += double(s);
      }
    sums[row] = sum, counts[row] = n;
  }
  __syncwarp();
  uint64_t* const sorted = memory + own * pitch;
  sort(x, thread, threads, sorted);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kOwn; ++i) sorted[i * threads + thread] = x[i];
  __syncthreads();
  if (threadIdx.x < here) {
    const uint64_t* const of_row = memory + threadIdx.x * pitch;
    const auto word = [&](int n) { return of_row[n % kOwn * threads + n / kOwn]; };
    kept[threadIdx.x] = taken(p, word, totals[threadIdx.x], sums[threadIdx.x], counts[threadIdx.x],
                              p.amounts ? p.amounts[first + threadIdx.x] : p.amount);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int c = int(uint32_t(x[i]));
    if (live && thread * kOwn + i < kept[own]) atomicOr(&bits[own * words + c / 32], 1u << c % 32);
  }
  __syncthreads();
  uint32_t* const out = reinterpret_cast<uint32_t*>(p.out) + first * words;
  for (int i = threadIdx.x; i < here * words; i += blockDim.x) out[i] = bits[i];
}

}  // namespace

void launch_select(const Select& p, void* stream) {
  const int threads = p.size / kOwn, together = threads < kThreads ? kThreads / threads : 1;
  const int bytes = together * ((p.size + 1) * 12 + p.words * 8);
  if (bytes > 48 << 10)
    cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const int64_t rows = p.batch * p.heads * p.rows;
  select_kernel<<<unsigned((rows + together - 1) / together), unsigned(together * threads), bytes,
                  cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
