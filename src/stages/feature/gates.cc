// Factors for finished outputs. See estimate.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "plan/pairs.h"
#include "regard/status.h"
#include "stages/estimate.h"
#include "stages/rows.h"
#include "stages/tile_sums.h"

namespace regard::estimate {
namespace {

// Where a logit is no number nothing is known of the share: the output stays as it is.
float share_of(double kept, double total) { return total > 0 ? float(kept / total) : 1; }

// f(packed keys, b, h, first, count) for every `most` queries of every head.
template <class F>
void each_part(const Ctx& ctx, const Inputs& x, int64_t most, const F& f) {
  const Problem& p = x.problem;
  const int64_t parts = (p.nq + most - 1) / most;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const matrix::Packed keys = matrix::pack_keys(x.k, b, kv, ctx.threads);
      parallel_for(p.group() * parts, ctx.threads, [&](int64_t item, int) {
        const int64_t first = item % parts * most;
        f(keys, b, kv * p.group() + item / parts, first, std::min(most, p.nq - first));
      });
    }
}

// Bits of pairs [nq][tiles] where all heads share them and they are at most 256 MB; else none.
std::vector<uint64_t> shared_pairs(const Ctx& ctx, const Problem& p, const Branch& b,
                                   int64_t tiles) {
  const IndexList* const list = b.cover.list.get();
  if (!list || list->batch > 1 || list->heads > 1 || b.order || b.rule.mask ||
      p.batch * p.heads == 1 || p.nq * tiles > int64_t(1) << 25)
    return {};
  std::vector<uint64_t> out(size_t(p.nq * tiles));
  constexpr int64_t kPart = 256;
  parallel_for((p.nq + kPart - 1) / kPart, ctx.threads, [&](int64_t part, int) {
    PairRows rows(p, b);
    for (int64_t i = part * kPart; i < std::min((part + 1) * kPart, p.nq); ++i)
      std::copy_n(rows.row(0, 0, i), tiles, &out[size_t(i * tiles)]);
  });
  return out;
}

// kept_share without the probabilities of single pairs.
void shares_by_tiles(const Ctx& ctx, const Inputs& x, const Plan& plan, const Tensor& out) {
  constexpr int64_t kTile = 64, kRows = TileSums::kRows;
  const Problem& p = x.problem;
  const TileSums sums(x, kTile);
  const int64_t tiles = sums.tiles();
  const std::vector<uint64_t> shared = shared_pairs(ctx, p, plan.branches.at(0), tiles);
  each_part(ctx, x, kRows,
            [&](const matrix::Packed& keys, int64_t b, int64_t h, int64_t first, int64_t count) {
              static thread_local std::vector<float> top, sum, kept;
              static thread_local std::vector<uint64_t> pairs;
              top.resize(size_t(kRows * tiles)), sum.resize(top.size()), kept.resize(top.size());
              const uint64_t* bits = shared.empty() ? nullptr : &shared[size_t(first * tiles)];
              if (!bits) {
                pairs.resize(top.size());
                PairRows rows(p, plan.branches.at(0));
                for (int64_t i = 0; i < count; ++i)
                  std::copy_n(rows.row(b, h, first + i), tiles, &pairs[size_t(i * tiles)]);
                bits = pairs.data();
              }
              sums.run(keys, b, h, first, count, top.data(), sum.data(), bits, kept.data());
              for (int64_t i = 0; i < count; ++i) {
                float* const weight = &top[size_t(i * tiles)];
                const float most = matrix::max_of(weight, tiles);
                matrix::exponentials(weight, tiles, std::isinf(most) && most < 0 ? 0 : most);
                double in = 0, total = 0;
                for (int64_t c = 0; c < tiles; ++c) {
                  total += double(sum[size_t(i * tiles + c)]) * weight[c];
                  in += double(kept[size_t(i * tiles + c)]) * weight[c];
                }
                *reinterpret_cast<float*>(out.view.at(b, h, first + i)) = share_of(in, total);
              }
            });
}

}  // namespace

Tensor kept_share(const Ctx& ctx, const Inputs& x, const Plan& plan) {
  const StageTimer timer(ctx, "estimate.kept_share");
  const Problem& p = x.problem;
  Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, 1});
  if (TileSums::takes(x, 64)) {
    shares_by_tiles(ctx, x, plan, out);
    return out;
  }
  const ProbabilityRows probabilities(x);
  constexpr int64_t kRows = 16;
  const int64_t stride = probabilities.stride();
  each_part(ctx, x, kRows,
            [&](const matrix::Packed& keys, int64_t b, int64_t h, int64_t first, int64_t count) {
              std::vector<float> rows(size_t(kRows * stride));
              probabilities.run(keys, b, h, first, count, rows.data(), stride);
              PairRows pairs(p, plan.branches.at(0));
              for (int64_t i = 0; i < count; ++i) {
                const uint64_t* bits = pairs.row(b, h, first + i);
                double kept = 0, total = 0;
                for (int64_t j = 0; j < p.nk; ++j) {
                  total += rows[i * stride + j];
                  if (bits[j >> 6] >> (j & 63) & 1) kept += rows[i * stride + j];
                }
                *reinterpret_cast<float*>(out.view.at(b, h, first + i)) = share_of(kept, total);
              }
            });
  return out;
}

Tensor per_row(const Problem& p, const Tensor& values) {
  const View& v = values.view;
  if ((v.size[0] != 1 && v.size[0] != p.batch) || (v.size[1] != 1 && v.size[1] != p.heads) ||
      v.size[2] != p.nq || info(v.dtype).block != 1)
    throw Error(fmt::format("factors of rows {}; accepted: [1|{},1|{},{},any]", v.shape(), p.batch,
                            p.heads, p.nq));
  Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, v.size[3]});
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i)
        read_row(v, v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i,
                 reinterpret_cast<float*>(out.view.at(b, h, i)));
  return out;
}

Tensor constant_gate(const Problem& p, const std::vector<double>& weights) {
  Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, int64_t(weights.size())});
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.nq; ++i) write_row(out.view, b, h, i, weights.data());
  return out;
}

}  // namespace regard::estimate
