// What a kernel receives, and how it lays out shared memory. Layer: cuda.
#pragma once
#include <cuda.h>

#include <cstdint>

namespace regard::cuda::sm90 {

// A kernel's shape. One block: a producer warp and `kGroups` warpgroups of 64 query rows each.
template <class T, int kHead, int kGroups_, int kKeys_, int kPiece_, int kKvStages_, int kQStages_,
          bool kQRegisters_, bool kStaged_, bool kHooks_>
struct Shape {
  using Element = T;
  static constexpr int kD = kHead;            // head size, padded: 64, 128 or 256
  static constexpr int kGroups = kGroups_;    // consumer warpgroups
  static constexpr int kRows = 64 * kGroups;  // query rows a block
  static constexpr int kKeys = kKeys_;        // keys a step
  static constexpr int kPiece = kPiece_;      // consecutive keys a copy; kKeys / kPiece: 1 or 2
  static constexpr int kKvStages = kKvStages_;
  static constexpr int kQStages = kQStages_;  // 2: the next rows' first QK overlaps the last PV
  static constexpr bool kQRegisters = kQRegisters_;  // Q is an operand in registers
  static constexpr bool kStaged = kStaged_;          // rows leave through shared memory
  static constexpr bool kHooks = kHooks_;            // soft-cap and ALiBi
  static constexpr bool kGather = false;             // single keys after the tiles
  // Below a diagonal tiles of rows are counted from the last row, so that the one that is not full
  // reads the fewest keys: worth it where tiles are so high that it often is not.
  static constexpr bool kFromEnd = kGroups == 3;

  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kBlocks = kGroups == 1 ? 2 : 1;  // resident a multiprocessor
  static constexpr int kProducerRegisters = kGroups == 3 ? 32 : 40;
  static constexpr int kConsumerRegisters = kGroups == 3 ? 160 : kGroups == 2 ? 232 : 216;
  static constexpr int kQBytes = kRows * kD * 2;
  static constexpr int kKvBytes = kKeys * kD * 2;
  static constexpr int kPieceBytes = kPiece * kD * 2;
};

template <class S>
struct Gathering : S {
  static constexpr bool kGather = true;
  static constexpr int kProducerRegisters = 64;
  static constexpr int kConsumerRegisters = 192;
};

// A tensor without a map.
struct Raw {
  const void* data;
  int64_t batch, head, row;
};

// A number known at launch, to divide by: n / by is n * factor >> shift for 0 <= n < 2^31. (Between
// two works the producer's latency shows, and a division of any numbers takes it 100 clocks.)
struct Divisor {
  int32_t by;
  uint32_t factor, shift;
};

// How works are numbered: section after section of (batch, head) pairs; in a section tiles of rows
// from `top` down, each one of all its pairs.
struct Order {
  int32_t begin;  // its first work
  int32_t top;    // its last tile of rows
  int32_t whole;  // sections of `pairs` pairs; one of `rest` may follow
  Divisor works;  // of a whole section
  Divisor pairs, rest;
};

// The arguments of a launch. Rows are "packed": the heads of a group that share a KV head take
// turns, packed row r is query r >> pack of head `head + (r & (1 << pack) - 1)`.
struct Call {
  CUtensorMap q;  // [d, 1 << pack, nq, heads >> pack, batch]
  CUtensorMap k;  // [d, nk, kv_heads, batch]
  CUtensorMap v;
  CUtensorMap o;  // as q, dv wide; not used where rows are stored directly
  void* out;
  int64_t out_batch, out_head, out_row;
  float* lse;        // of Partials: {maximum in log2 units, sum} a row
  int64_t lse_head;  // rows of lse a head: nq, or all sequences' queries
  const int32_t* cu_q;
  const int32_t* cu_k;
  const int64_t* start;
  const uint32_t* index;
  const int64_t* key_start;  // single keys of the same rows
  const uint32_t* key_index;
  const float* alibi;
  const float* sink_logit;
  int32_t* counter;  // next work to hand out; null: works are dealt by block number
  int32_t* links;    // [works, warps of rows]: repair.h
  Raw raw_q, raw_k, raw_v;
  int32_t nq, nk, dk, dv, pack;
  Divisor heads;    // packed heads: query heads >> pack
  Divisor sharing;  // packed heads that share a KV head
  int32_t works;    // tiles of kRows packed rows of all heads and batch items (or sequences)
  Order order[2];   // the second holds the shortest tiles of rows of all heads, if they come last
  bool from_end;    // as Shape::kFromEnd: the first tile of rows may begin before row 0
  // Key j is read by query i when j < nk, j < i + right and (j >= i + left or j < sink).
  int32_t offset, left, right, sink;
  int32_t list_batch, list_heads, list_rows;
  Divisor bq;
  Divisor pieces;  // copies an entry of a list
  int32_t unit;    // keys from entry to entry of a list: bk, or 1 where entries are keys
  int32_t apart;   // from a row's start to the next one's: 1, or 2 where its end stands between
  int32_t float_out;
  int32_t partial;                 // rows leave as Partials
  float scale_log2, unscale_log2;  // scale * log2(e), with hooks 1; and its inverse
  float scale, softcap;
  float share;  // cuda/maxima.h
};

// What the producer tells the consumers about a tile of rows.
struct Work {
  int32_t steps;  // steps of kKeys keys; 0: no key at all; -1: no more work
  int32_t row;    // first packed row; by 64 s below 0 where the first tile has fewer
  int32_t rows;   // packed rows of this sequence
  int32_t nk;     // keys of this sequence
  int32_t head;   // packed head
  int32_t batch;  // batch item
  int32_t q0;     // this sequence's first row in q, out and lse
  int32_t shift;  // added to left and right: offset of this sequence
  int32_t number;
};
// ... and about a step: the first key of each piece; `mask`: some pair may not be allowed (1),
// also for the sake of `left` (2). Of single keys `key` is {0, how many there are}, and `mask` 4
// where they do not fill the step; every query reads them.
struct Step {
  int32_t key[2];
  int32_t mask;
};

constexpr int kWorkSlots = 4;  // more than kQStages + 1: a slot outlives its Q

template <class S>
struct Storage {
  alignas(1024) uint8_t q[S::kQStages][S::kQBytes];
  alignas(1024) uint8_t k[S::kKvStages][S::kKvBytes];
  alignas(1024) uint8_t v[S::kKvStages][S::kKvBytes];
  alignas(S::kStaged
              ? 1024
              : 1) uint8_t out[S::kStaged ? 4 * S::kGroups : 1][S::kStaged ? 16 * S::kD * 2 : 1];
  uint64_t q_full[S::kQStages], q_empty[S::kQStages];
  uint64_t k_full[S::kKvStages], k_empty[S::kKvStages];
  uint64_t v_full[S::kKvStages], v_empty[S::kKvStages];
  Work work[kWorkSlots];
  Step step[S::kKvStages];
  int32_t spoilt[4 * S::kGroups];  // by warp, the last of a chain of works (repair.h); -1: none
};

// Where dynamic shared memory begins in a kernel without any other, on every sm_90 so far: kernel.h
// checks it. Addresses that are constants save the uniform arithmetic ahead of every product.
constexpr uint32_t kSharedBase = 1024;

// A position in a ring of kStages slots, with the phase of its mbarriers.
template <int kStages>
struct Ring {
  uint32_t slot = 0, phase = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == kStages) {
      slot = 0;
      phase ^= 1;
    }
  }
};

}  // namespace regard::cuda::sm90
