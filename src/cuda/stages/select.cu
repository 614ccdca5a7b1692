// The selector where every row of tiles competes by itself; its rules are those of
// stages/select.h, its arithmetic that of stages/select/select.cc. One block a row.
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kThreads = 128;
constexpr uint64_t kNever = ~uint64_t(0);  // sorts behind every candidate

__device__ bool scored(float x) { return !(x != x) && x != -kInf; }

// Ascending words are descending scores, then ascending indices.
__device__ uint64_t word_of(float score, int index) {
  return uint64_t(~ordered(score + 0.0f)) << 32 | uint32_t(index);  // -0 becomes 0: they tie
}

__device__ void sort(uint64_t* x, int n) {
  for (int width = 2; width <= n; width *= 2)
    for (int step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < n / 2; i += kThreads) {
        const int low = i / step * 2 * step + i % step, high = low + step;
        const bool up = (low & width) == 0;
        const uint64_t a = x[low], b = x[high];
        if ((a > b) == up) x[low] = b, x[high] = a;
      }
    }
  __syncthreads();
}

// One thread: takes from the front of the sorted words, as Competition::run does.
__device__ void choose(const Select& p, const float* score, const uint64_t* sorted, int candidates,
                       double total, double sum, int64_t count, double amount, uint32_t* bits) {
  const double goal = amount * total;
  const double floor_or_ceil = p.ceil ? ceil(amount) : floor(amount);
  const int64_t most = floor_or_ceil < 0      ? 0
                       : floor_or_ceil > 9e18 ? INT64_MAX
                                              : int64_t(floor_or_ceil);
  int64_t extra = goal > 0 ? p.extra : 0;
  int next = candidates > 0 ? int(uint32_t(sorted[0])) : 0;
  float next_score = score[next];
  for (int n = 0; n < candidates && count < p.max_count; ++n) {
    const int i = next;
    const double s = next_score;
    if (n + 1 < candidates) next = int(uint32_t(sorted[n + 1])), next_score = score[next];
    const bool inside = p.cut == Select::top_k ? count < most
                        : p.cut == Select::coverage
                            ? (p.keep_crossing ? sum < goal : sum + s <= goal)
                            : s > amount;
    if (!inside && count >= p.min_count && !(p.cut == Select::coverage && extra-- > 0)) break;
    bits[i / 32] |= 1u << i % 32;
    ++count;
    sum += s;
  }
}

__global__ void __launch_bounds__(kThreads) select_kernel(const __grid_constant__ Select p) {
  extern __shared__ uint64_t sorted[];  // [size], then scores and bits
  float* const score = reinterpret_cast<float*>(sorted + p.size);
  uint32_t* const bits = reinterpret_cast<uint32_t*>(score + p.size);
  __shared__ double total, sum;
  __shared__ int count, candidates;
  const int64_t row = blockIdx.x;
  const int64_t r = row % p.rows, h = row / p.rows % p.heads, b = row / p.rows / p.heads;
  const int words = 2 * p.words;
  const uint32_t* const forced =
      p.forced
          ? reinterpret_cast<const uint32_t*>(p.forced) +
                (((p.forced_batch == 1 ? 0 : b) * p.forced_heads + (p.forced_heads == 1 ? 0 : h)) *
                     p.rows +
                 r) *
                    words
          : nullptr;
  if (threadIdx.x == 0) candidates = 0;
  for (int w = threadIdx.x; w < words; w += kThreads) bits[w] = forced ? forced[w] : 0;
  __syncthreads();
  int own = 0;
  for (int i = threadIdx.x; i < p.size; i += kThreads) {
    const float s = i < p.cols ? p.scores[row * p.cols + i] : -kInf;
    const bool first = i < p.cols && (bits[i / 32] >> i % 32 & 1) && p.forced_counts;
    const bool candidate = scored(s) && !first;
    if (i < p.cols) score[i] = s;
    sorted[i] = candidate ? word_of(s, i) : kNever;
    own += candidate;
  }
  atomicAdd(&candidates, own);
  __syncthreads();
  if (threadIdx.x == 0) {
    double all = 0;  // + 0 changes nothing, and leaves no branch in the chain
#pragma unroll 8
    for (int i = 0; i < p.cols; ++i) all += scored(score[i]) ? double(score[i]) : 0.0;
    total = all;
  } else if (threadIdx.x == 32) {
    double taken = 0;
    int n = 0;
    for (int w = 0; p.forced_counts && w < words; ++w)
      for (uint32_t left = bits[w]; left; left &= left - 1, ++n) {
        const float s = score[w * 32 + __ffs(left) - 1];
        if (scored(s)) taken += double(s);
      }
    sum = taken, count = n;
  }
  sort(sorted, p.size);
  if (threadIdx.x == 0)
    choose(p, score, sorted, candidates, total, sum, count, p.amounts ? p.amounts[row] : p.amount,
           bits);
  __syncthreads();
  uint32_t* const out = reinterpret_cast<uint32_t*>(p.out) + row * words;
  for (int w = threadIdx.x; w < words; w += kThreads) out[w] = bits[w];
}

}  // namespace

void launch_select(const Select& p, void* stream) {
  const int bytes = p.size * 12 + p.words * 8;
  if (bytes > 48 << 10)
    cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  select_kernel<<<unsigned(p.batch * p.heads * p.rows), kThreads, bytes, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
