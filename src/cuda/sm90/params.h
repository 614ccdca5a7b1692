// What a Hopper forward kernel is told: plain data, device pointers. Layer: cuda.
//
// One call computes out[b, h, i] = sum_j softmax_j(score(i, j)) v[j] and lse (natural log) over
// the pairs of one branch. Covers: All and Band are `left`, `right`, `sink` alone; Tiles are a
// list (start != nullptr), whose boundary tiles evaluate left, right and sink pair by pair.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace regard::cuda::sm90 {

enum class Type : int32_t { bf16, f16, f32 };

// Strides count elements. The last axis is contiguous. int64: no limit at 2^31 elements.
struct Tensor {
  void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;
};

struct Params {
  Type type = Type::bf16;      // q, k, v: bf16 or f16
  Type out_type = Type::bf16;  // the type of q, k, v, or f32
  Tensor q, k, v, out;         // [batch, heads | kv_heads, nq | nk, dk | dv]
  float* lse = nullptr;        // [batch, heads, nq], contiguous; null: not wanted
  // Rows leave as Partials: out (f32) are sums of weights times values, and lse pairs of floats,
  // the maximum in units of log2 and the sum of weights beneath it. Without sink_logit.
  bool partial = false;

  int32_t batch = 1, heads = 1, kv_heads = 1;
  int64_t nq = 0, nk = 0;
  int32_t dk = 0, dv = 0;  // multiples of 8, at most 256
  float scale = 0;         // > 0

  // Query i reads keys j with i + offset - left <= j <= i + offset + right, j < nk, and the first
  // `sink` keys, which are exempt from `left` alone. -1: no limit. Causal: right = 0.
  int64_t offset = 0;
  int64_t left = -1, right = -1, sink = 0;

  // Packed sequences (batch = 1): device arrays [sequences + 1] of cumulative lengths; null: none.
  // Then offset is nk - nq of each sequence. lse is [heads, total queries].
  const int32_t* cu_q = nullptr;
  const int32_t* cu_k = nullptr;
  int32_t sequences = 0;
  int64_t max_nq = 0;  // the longest sequence of queries

  // Tiles: rows of key tiles as in IndexList (bit 31: boundary), arrays on the device.
  const int64_t* start = nullptr;   // [list_batch * list_heads * list_rows + 1]
  const uint32_t* index = nullptr;  // sorted in a row
  int64_t list_batch = 1, list_heads = 1, list_rows = 0;
  int32_t bq = 0, bk = 0;  // multiples of 64
  // Instead: entries are the first keys of 64 (bk) consecutive ones, anywhere, and `start` and
  // `key_start` hold a row's begin and end, [2 * ...]. With single keys alone.
  bool loose = false;
  // Single keys of the same rows, which every query of a row reads; beside tiles or alone. null:
  // none.
  const int64_t* key_start = nullptr;
  const uint32_t* key_index = nullptr;

  float softcap = 0;                  // 0: off
  const float* alibi = nullptr;       // [heads] on the device: adds -slope |i + offset - j|
  const float* sink_logit = nullptr;  // [heads] on the device: one more logit per row, no value

  const char* force = nullptr;  // the name of one instance (instances.def); null: the fastest

  // Scratch of workspace(params) bytes, 16-byte aligned. The first kCleared are zero before its
  // first use, and a call leaves them zero again. Calls that may run at the same time need one
  // each.
  void* workspace = nullptr;
  int32_t sms = 132;         // multiprocessors that the call may use
  void* counters = nullptr;  // kCleared bytes, used instead of the workspace's; null: those
};

// Why no kernel here takes this call (one line: what came, what is accepted); empty: one does.
std::string refusal(const Params& p);
size_t workspace(const Params& p);  // of a call that is not refused
constexpr size_t kCleared = 16;

// Launches on `stream`: allocates nothing, waits for nothing, and can be captured in a graph.
// Throws Error where refusal() is not empty or a launch fails.
void forward(const Params& p, cudaStream_t stream);

}  // namespace regard::cuda::sm90
