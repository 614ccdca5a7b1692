// The producer warps: hand out works, walk the cover, and keep the copies in flight.
// Covers live here alone: consumers see steps of keys. Layer: cuda (device code).
#pragma once
#include "cuda/ptx.h"
#include "cuda/sm90/call.h"

namespace regard::cuda::sm90 {

__device__ __forceinline__ int quotient(int n, const Divisor& d) {
  return static_cast<int>(uint64_t{static_cast<uint32_t>(n)} * d.factor >> d.shift);
}

// The steps of one tile of rows, in reading order: rightmost keys first, so that the tiles cut by
// the causal diagonal come first.
template <class S>
class Steps {
 public:
  __device__ Steps(const Call& c, const Work& w) : lane_(threadIdx.x & 31) {
    const int first = w.row >> c.pack;
    const int last = (min(w.row + S::kRows, w.rows) - 1) >> c.pack;
    // Keys that every row reads: [low_, high_) and below sink. Sums stay below 2^31 (call.h).
    high_ = min(w.nk, first + w.shift + c.right);
    low_ = last + w.shift + c.left;
    sink_ = c.sink;
    nk_ = w.nk;
    if (c.start || S::kGather) {
      const int b = c.list_batch == 1 ? 0 : w.batch, h = quotient(w.head * c.list_heads, c.heads);
      const int64_t row = int64_t{b * c.list_heads + h} * c.list_rows + quotient(first, c.bq);
      const int64_t id = S::kGather ? row * c.apart : row;
      if (!S::kGather || c.start) {
        list_ = c.index + c.start[id];
        entries_ = static_cast<int>(c.start[id + 1] - c.start[id]);
      }
      pieces_ = c.pieces;
      count = (entries_ * pieces_.by + kPieces - 1) / kPieces;
      fetched_ = fetch(0);
      if constexpr (S::kGather) {
        unit_ = c.unit;
        keys_ = c.key_index + c.key_start[id];
        key_count_ = static_cast<int>(c.key_start[id + 1] - c.key_start[id]);
        const int singles = (key_count_ + S::kKeys - 1) / S::kKeys;
        count += singles;
        share_ = count == 0 ? 0 : ((static_cast<uint64_t>(singles) << 32) + count - 1) / count;
        fetch_keys(0);
      }
    } else {
      const int most = max(0, min(w.nk, last + w.shift + c.right));
      const int least = max(0, first + w.shift + c.left);
      end_ = (most + S::kKeys - 1) / S::kKeys;
      sinks_ = (min(c.sink, most) + S::kKeys - 1) / S::kKeys;
      begin_ = max(sinks_, min(least / S::kKeys, end_));
      count = end_ - begin_ + sinks_;
    }
  }
  // Called for t = 0, 1, ... by the whole warp.
  __device__ Step at(int t) {
    Step s;
    if (gathers(t)) {
      s.key[0] = 0;
      s.key[1] = min(S::kKeys, key_count_ - singles_before(t) * S::kKeys);
      s.mask = s.key[1] < S::kKeys ? 4 : 0;
    } else if (list_) {
      s.mask = 0;
      const int tile_step = t - singles_before(t);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int p = tile_step * kPieces + i;
        const int whole = quotient(p, pieces_), entry = min(whole, entries_ - 1);
        if (entry >> 5 != block_) {
          block_ = entry >> 5;
          fetched_ = fetch(block_);
        }
        const uint32_t tile = __shfl_sync(~0u, fetched_, entry & 31);
        const int inside = p - whole * pieces_.by;
        const int unit = S::kGather ? unit_ : pieces_.by * S::kPiece;
        const int key = static_cast<int>(tile & 0x7FFFFFFF) * unit + inside * S::kPiece;
        const bool missing = whole >= entries_;
        s.key[i] = missing ? kNoKey : key;
        s.mask |= (tile >> 31) * 3 | (key + S::kPiece > nk_) | missing;
      }
      if (kPieces == 1) s.key[1] = s.key[0];
    } else {
      const int window = end_ - begin_;
      const int tile = t < window ? end_ - 1 - t : sinks_ - 1 - (t - window);
      const int key = tile * S::kKeys;
      s.key[0] = key;
      s.key[1] = key + (kPieces == 2 ? S::kPiece : 0);
      s.mask = (key + S::kKeys > high_) | (key < low_ && key + S::kKeys > sink_) * 3;
    }
    return s;
  }
  int count = 0;

  // Whether step t is one of single keys. Those take longer to load, and are spread among the
  // tiles.
  __device__ __forceinline__ bool gathers(int t) const {
    return S::kGather && singles_before(t + 1) > singles_before(t);
  }
  // The keys of a step of single ones, two a lane; the next step's are asked for. Called as at().
  __device__ __forceinline__ void take_keys(int t, uint32_t (&keys)[2]) {
    keys[0] = next_[0], keys[1] = next_[1];
    fetch_keys(singles_before(t) + 1);
  }
  // The key of a column of a step; kNoKey or more where there is none.
  __device__ __forceinline__ int key_of(int t, const Step& s, int column) const {
    if (!gathers(t)) return s.key[column / S::kPiece & 1] + column % S::kPiece;
    const int at = singles_before(t) * S::kKeys + column;
    return at < key_count_ ? static_cast<int>(keys_[at]) : kNoKey;
  }

  static constexpr int kPieces = S::kKeys / S::kPiece;
  static constexpr int kNoKey = 1 << 30;  // beyond every limit: masked

 private:
  __device__ uint32_t fetch(int block) const {
    const int e = block * 32 + lane_;
    // The last entries first, as the ranges below.
    return e < entries_ ? list_[entries_ - 1 - e] : 0;
  }
  // Rounded to the nearest, so that a work seldom ends with one.
  __device__ __forceinline__ int singles_before(int t) const {
    if (!S::kGather) return 0;
    return static_cast<int>((share_ * static_cast<uint32_t>(t) + (uint64_t{1} << 31)) >> 32);
  }
  __device__ __forceinline__ void fetch_keys(int step) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = step * S::kKeys + 32 * i + lane_;
      next_[i] = at < key_count_ ? keys_[at] : 0;
    }
  }
  int lane_;
  int high_, low_;
  int sink_, nk_;
  const uint32_t* list_ = nullptr;
  int entries_ = 0, block_ = 0;
  Divisor pieces_;
  uint32_t fetched_ = 0;
  const uint32_t* keys_ = nullptr;  // single keys
  int key_count_ = 0, unit_ = 0;
  uint64_t share_ = 0;  // single keys' steps among all, in 2^-32, rounded up
  uint32_t next_[2] = {0, 0};
  int begin_ = 0, end_ = 0, sinks_ = 0;
};

// Work number -> rows. False: no such rows.
template <class S>
__device__ __forceinline__ bool describe(const Call& c, int number, Work& w) {
  const Order& o = c.order[number >= c.order[1].begin];
  const int section = quotient(number - o.begin, o.works);
  const int inside = number - o.begin - section * o.works.by;
  const Divisor& pairs = section < o.whole ? o.pairs : o.rest;
  const int down = quotient(inside, pairs);
  const int pair = section * o.pairs.by + inside - down * pairs.by;
  w.row = (o.top - down) * S::kRows;
  w.batch = quotient(pair, c.heads);
  w.head = pair - w.batch * c.heads.by;
  w.number = number;
  if (c.cu_q) {
    const int s = w.batch;
    w.q0 = c.cu_q[s];
    w.rows = (c.cu_q[s + 1] - w.q0) << c.pack;
    w.nk = c.cu_k[s + 1] - c.cu_k[s];
    w.shift = w.nk - (w.rows >> c.pack);
  } else {
    w.q0 = 0;
    w.rows = c.nq << c.pack;
    w.nk = c.nk;
    w.shift = c.offset;
  }
  if constexpr (S::kFromEnd) {
    // By whole warpgroups, since the copy engine takes no coordinate below zero.
    if (c.from_end) w.row -= (S::kRows - 1 - (w.rows + S::kRows - 1) % S::kRows) / 64 * 64;
  }
  return w.row < w.rows;
}

// Loads one step's keys (or values), piece by piece. Called by one lane.
template <class S>
__device__ __forceinline__ void load_step(const CUtensorMap& map, uint8_t* to, uint64_t* bar,
                                          const Step& s, int first, int head, int batch) {
  ptx::arrive_expect(bar, S::kKvBytes);
#pragma unroll
  for (int i = 0; i < Steps<S>::kPieces; ++i) {
    // A missing piece: any finite keys, as all of its pairs are masked.
    const int key = s.key[i] == Steps<S>::kNoKey ? s.key[0] : s.key[i];
#pragma unroll
    for (int chunk = 0; chunk < S::kD / 64; ++chunk) {
      ptx::load4(ptx::shared(to) + chunk * S::kKeys * 128 + i * S::kPiece * 128, &map, bar,
                 chunk * 64, first + key, head, batch);
    }
  }
}

// Steps of single keys: rows are copied 16 bytes a lane into the layout that the copy engine makes.
// A step is announced when the next one's copies are on their way, and its own have landed.
template <class S>
class Gather {
 public:
  __device__ Gather(const Raw& x, int channels, uint64_t* full)
      : x_(x), channels_(channels), full_(full), lane_(threadIdx.x & 31) {}

  // By the whole warp: `count` rows from the keys of two a lane; zeros for the rest of the step.
  __device__ __forceinline__ void load(uint8_t* stage, int slot, const uint32_t (&keys)[2],
                                       int count, int head, int batch) {
    constexpr int kChunks = S::kD / 8, kAtOnce = 32 / kChunks;  // of 16 bytes; rows
    const int chunk = lane_ % kChunks, own = lane_ / kChunks;
    const char* const base =
        static_cast<const char*>(x_.data) + 2 * (batch * x_.batch + head * x_.head) + chunk * 16;
    const uint32_t to = ptx::shared(stage) + chunk / 8 * (S::kKeys * 128) + own * 128;
    const int64_t step = 2 * x_.row;
    const bool whole = count == S::kKeys && S::kD == channels_;
#pragma unroll
    for (int first = 0; first < S::kKeys; first += kAtOnce) {
      const uint32_t key = __shfl_sync(~0u, first < 32 ? keys[0] : keys[1], first % 32 + own);
      const uint32_t at = to + first * 128 + ((chunk & 7) ^ (first % 8 + own)) * 16;
      if (whole) {
        ptx::copy16(at, base + key * step);
      } else {
        ptx::copy16(at, base + key * step, first + own < count && chunk * 8 < channels_);
      }
    }
    ptx::commit_copies();
    announce<1>();
    pending_ = slot;
  }
  // After a step whose copies announce themselves, and at the end.
  __device__ __forceinline__ void flush() { announce<0>(); }

 private:
  template <int kLater>
  __device__ __forceinline__ void announce() {
    if (pending_ < 0) return;
    ptx::wait_copies<kLater>();
    ptx::fence_async();
    __syncwarp();
    if (lane_ == 0) ptx::arrive(&full_[pending_]);
    pending_ = -1;
  }

  const Raw& x_;
  const int channels_;
  uint64_t* const full_;
  const int lane_;
  int pending_ = -1;
};

// The first producer warp: works, queries and keys.
template <class S>
__device__ __forceinline__ void produce_keys(const Call& c, Storage<S>& m) {
  const bool leader = (threadIdx.x & 31) == 0;
  Ring<S::kQStages> q;
  Ring<S::kKvStages> k;
  Gather<S> gather(c.raw_k, c.dk, m.k_full);
  int slot = 0;
  int number = blockIdx.x;
  while (number < c.works) {
    Work w;
    const bool exists = describe<S>(c, number, w);
    int next = number + gridDim.x;
    const auto draw = [&] {
      if (c.counter && leader) next = atomicAdd(c.counter, 1) + gridDim.x;
    };
    if (!exists) {
      draw();
    } else {
      Steps<S> steps(c, w);
      w.steps = steps.count;
      const int kv_head = quotient(w.head, c.sharing);
      const int batch = c.cu_q ? 0 : w.batch;
      const int k0 = c.cu_q ? c.cu_k[w.batch] : 0;

      ptx::wait(&m.q_empty[q.slot], q.phase ^ 1);
      if (leader) {
        m.work[slot] = w;
        if (w.steps == 0) {
          ptx::arrive(&m.q_full[q.slot]);
        } else {
          ptx::arrive_expect(&m.q_full[q.slot], S::kQBytes);
          const int a_box = 64 >> c.pack;  // queries a box of 64 packed rows
#pragma unroll
          for (int chunk = 0; chunk < S::kD / 64; ++chunk) {
            for (int g = 0; g < S::kGroups; ++g) {
              const int query = (w.row >> c.pack) + g * a_box;
              ptx::load5(ptx::shared(m.q[q.slot]) + (chunk * S::kRows + g * 64) * 128, &c.q,
                         &m.q_full[q.slot], chunk * 64, 0,
                         w.q0 + (S::kFromEnd ? max(0, query) : query), w.head, batch);
            }
          }
        }
      }
      q.advance();
      slot = (slot + 1) % kWorkSlots;
      // The next work is drawn late, for balance, but early enough to hide the atomic's latency.
      const int draw_at = max(0, w.steps - 4);
      if (w.steps == 0) draw();
      for (int t = 0; t < w.steps; ++t) {
        if (t == draw_at) draw();
        const Step s = steps.at(t);
        if constexpr (S::kGather) {
          if (steps.gathers(t)) {
            uint32_t keys[2];
            steps.take_keys(t, keys);
            ptx::wait(&m.k_empty[k.slot], k.phase ^ 1);
            if (leader) m.step[k.slot] = s;
            gather.load(m.k[k.slot], k.slot, keys, s.key[1], kv_head, batch);
            k.advance();
            continue;
          }
        }
        ptx::wait(&m.k_empty[k.slot], k.phase ^ 1);
        if (leader) {
          m.step[k.slot] = s;
          load_step<S>(c.k, m.k[k.slot], &m.k_full[k.slot], s, k0, kv_head, batch);
        }
        if constexpr (S::kGather) gather.flush();
        k.advance();
      }
    }
    number = c.counter ? __shfl_sync(~0u, next, 0) : next;
  }
  if constexpr (S::kGather) gather.flush();
  // The last block to run dry leaves the counters at zero for the next call.
  if (c.counter && leader && atomicAdd(c.counter + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    c.counter[0] = c.counter[1] = 0;
  }
  ptx::wait(&m.q_empty[q.slot], q.phase ^ 1);
  if (leader) {
    m.work[slot].steps = -1;
    ptx::arrive(&m.q_full[q.slot]);
  }
}

// The second producer warp: values, for the works that the first one announces.
template <class S>
__device__ __forceinline__ void produce_values(const Call& c, Storage<S>& m) {
  const bool leader = (threadIdx.x & 31) == 0;
  Ring<S::kQStages> q;
  Ring<S::kKvStages> v;
  Gather<S> gather(c.raw_v, c.dv, m.v_full);
  int slot = 0;
  while (true) {
    ptx::wait(&m.q_full[q.slot], q.phase);
    const Work w = m.work[slot];
    ptx::arrive(&m.q_empty[q.slot]);
    q.advance();
    slot = (slot + 1) % kWorkSlots;
    if (w.steps < 0) break;
    if (w.steps == 0) continue;
    Steps<S> steps(c, w);
    const int kv_head = quotient(w.head, c.sharing);
    const int batch = c.cu_q ? 0 : w.batch;
    const int k0 = c.cu_q ? c.cu_k[w.batch] : 0;
    for (int t = 0; t < w.steps; ++t) {
      const Step s = steps.at(t);
      if constexpr (S::kGather) {
        if (steps.gathers(t)) {
          uint32_t keys[2];
          steps.take_keys(t, keys);
          ptx::wait(&m.v_empty[v.slot], v.phase ^ 1);
          gather.load(m.v[v.slot], v.slot, keys, s.key[1], kv_head, batch);
          v.advance();
          continue;
        }
      }
      ptx::wait(&m.v_empty[v.slot], v.phase ^ 1);
      if (leader) load_step<S>(c.v, m.v[v.slot], &m.v_full[v.slot], s, k0, kv_head, batch);
      if constexpr (S::kGather) gather.flush();
      v.advance();
    }
  }
  if constexpr (S::kGather) gather.flush();
}

}  // namespace regard::cuda::sm90
