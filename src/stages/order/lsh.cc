// Reformer's LSH attention. A round sorts the keys once; a query finds by bisection where it would
// stand among them, so a strip of queries needs nothing of the queries before it.
#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "core/parallel.h"
#include "stages/order.h"
#include "stages/order/project.h"
#include "stages/order/shared_lists.h"
#include "stages/rows.h"

namespace regard::order {
namespace {

// The least and the greatest of n numbers; NaN is passed over. Without branches, so that it runs on
// vectors.
std::pair<float, float> extremes(const float* x, int64_t n) {
  constexpr int64_t kPart = 16;
  float least[kPart], most[kPart];
  std::fill_n(least, kPart, std::numeric_limits<float>::infinity());
  std::fill_n(most, kPart, -std::numeric_limits<float>::infinity());
  const auto add = [&](float y, int64_t l) {
    least[l] = y < least[l] ? y : least[l];
    most[l] = y > most[l] ? y : most[l];
  };
  int64_t c = 0;
  for (; c + kPart <= n; c += kPart)
    for (int64_t l = 0; l < kPart; ++l) add(x[c + l], l);
  for (; c < n; ++c) add(x[c], 0);
  return {*std::min_element(least, least + kPart), *std::max_element(most, most + kPart)};
}

}  // namespace

Labels lsh(const Ctx& ctx, const View& x, int64_t buckets, int64_t round, int64_t seed,
           const Tensor& rotations) {
  const StageTimer timer(ctx, "order.lsh");
  Labels out;
  out.batch = x.size[0], out.heads = x.size[1], out.n = x.size[2];
  const int64_t half = (buckets + 1) / 2;
  out.count = buckets == 1 ? 1 : 2 * half;
  out.label.assign(size_t(out.batch * out.heads * out.n), 0);
  if (buckets == 1) return out;
  const Directions directions(half, x.size[3], seed, round, ctx.threads, rotations.view);
  directions.each(x, ctx.threads, [&](int64_t b, int64_t h, int64_t i, const float* dots) {
    const auto [low, high] = extremes(dots, half);
    // The first of the greatest of both signs; 0 where all are NaN.
    const int64_t best =
        -low > high ? half + index_of(dots, half, low) : index_of(dots, half, high) % half;
    out.row(b, h)[i] = int32_t(best);
  });
  return out;
}

namespace {

// Keys of one head and round by (bucket, position).
struct Sorted {
  std::vector<uint32_t> token;
  std::vector<int64_t> begin;  // of each bucket, [buckets + 1]

  Sorted(const int32_t* bucket, int64_t n, int64_t buckets)
      : token(static_cast<size_t>(n)), begin(size_t(buckets + 1), 0) {
    for (int64_t j = 0; j < n; ++j) ++begin[bucket[j] + 1];
    for (int64_t c = 0; c < buckets; ++c) begin[c + 1] += begin[c];
    std::vector<int64_t> next = begin;
    for (int64_t j = 0; j < n; ++j) token[next[bucket[j]]++] = uint32_t(j);
  }

  // The keys of `bucket` up to position `end` in the chunk where (bucket, position) stands and in
  // the one before.
  void find(int32_t bucket, int64_t position, int64_t end, int64_t chunk,
            std::vector<uint32_t>* out) const {
    const auto first = token.begin() + begin[bucket], last = token.begin() + begin[bucket + 1];
    const int64_t place =
        std::lower_bound(first, last, uint32_t(std::max<int64_t>(position, 0))) - token.begin();
    const int64_t own = std::min(place, int64_t(token.size()) - 1) / chunk;
    const int64_t from = std::max(begin[bucket], (own - 1) * chunk);
    const int64_t to = std::min(begin[bucket + 1], (own + 1) * chunk);
    for (int64_t n = from; n < to && token[n] < end; ++n) out->push_back(token[n]);
  }
};

// What a query reads: rounds united, itself only where nothing else is left or where it may.
class Union {
 public:
  explicit Union(int64_t nk) : bits_(size_t(nk + 63) / 64) {}

  void finish(std::vector<uint32_t>* keys, int64_t position, int64_t nk, bool self_always) {
    size_t low = bits_.size(), high = 0;
    for (const uint32_t j : *keys) {
      bits_[j >> 6] |= 1ull << (j & 63);
      low = std::min<size_t>(low, j >> 6), high = std::max<size_t>(high, j >> 6);
    }
    keys->clear();
    for (size_t w = low; w <= high && w < bits_.size(); ++w) {
      for (uint64_t left = bits_[w]; left != 0; left &= left - 1)
        keys->push_back(uint32_t(w * 64) + uint32_t(std::countr_zero(left)));
      bits_[w] = 0;
    }
    if (self_always) return;
    const auto self = std::lower_bound(keys->begin(), keys->end(), uint32_t(position));
    const bool has = self != keys->end() && int64_t(*self) == position;
    if (has && keys->size() > 1) keys->erase(self);
    if (keys->empty() && position >= 0 && position < nk) keys->push_back(uint32_t(position));
  }

 private:
  std::vector<uint64_t> bits_;  // all 0 between calls
};

}  // namespace

Plan lsh_attention(const Ctx& ctx, const Inputs& x, const Lsh& how) {
  const Problem& p = x.problem;
  need_one_sequence(p, "LSH attention");
  const int64_t buckets = how.buckets ? how.buckets : 2 * ((p.nk + how.chunk - 1) / how.chunk);
  std::vector<Labels> queries, keys;
  for (int64_t round = 0; round < how.rounds; ++round) {
    queries.push_back(lsh(ctx, x.q, buckets, round, how.seed, how.rotations));
    keys.push_back(lsh(ctx, x.k, buckets, round, how.seed, how.rotations));
  }
  const StageTimer timer(ctx, "order.lsh_lists");
  SharedLists lists(p.batch, p.heads, p.nq);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    std::vector<Sorted> sorted;
    for (const Labels& k : keys) sorted.emplace_back(k.row(b, h / p.group()), p.nk, k.count);
    Union rounds(p.nk);
    std::vector<uint32_t> list;
    for (int64_t i = 0; i < p.nq; ++i) {
      const int64_t position = i + p.offset;
      const int64_t end = x.causal ? std::clamp<int64_t>(position + 1, 0, p.nk) : p.nk;
      list.clear();
      for (size_t r = 0; r < sorted.size(); ++r)
        sorted[r].find(queries[r].row(b, h)[i], position, end, how.chunk, &list);
      rounds.finish(&list, position, p.nk, how.self_always);
      lists.open(bh) = list;  // no larger than it has to be
      lists.reads_last(bh, i);
    }
  });
  return Plan::columns(p, lists.columns(p.nk));
}

}  // namespace regard::order
