// FlexPrefill's reading of the probe: sums by tile, and how many tokens cover a share of it.
#include <algorithm>
#include <bit>
#include <vector>

#include "core/parallel.h"
#include "stages/device.h"
#include "stages/estimate.h"
#include "stages/units.h"

namespace regard::estimate {
namespace {

// Where the largest of x[0, n) cross gamma of the sum: digit by digit of the floats' bits, the sums
// and numbers of all that agree so far.
units::Crossing crossing(const float* x, int64_t n, double gamma) {
  constexpr int kBits = 12;
  std::vector<uint64_t> sums(size_t(1) << kBits);
  std::vector<int64_t> counts(size_t(1) << kBits);
  units::Crossing out;
  uint32_t prefix = 0, known = 0;
  for (const int shift : {20, 8, 0}) {
    std::fill(sums.begin(), sums.end(), 0), std::fill(counts.begin(), counts.end(), 0);
    const uint32_t digit = (shift == 0 ? 1u << 8 : 1u << kBits) - 1;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(x[i] > 0 ? x[i] : 0.0f);
      if ((bits & known) != prefix) continue;
      sums[bits >> shift & digit] += units::of(x[i]);
      ++counts[bits >> shift & digit];
    }
    if (known == 0) {
      for (const uint64_t s : sums) out.total += s;
      const double goal = gamma * double(out.total);
      if (!(goal > 0) || double(out.total) < goal) return out;
    }
    uint32_t d = digit;
    for (; double(out.above + sums[d]) < gamma * double(out.total); --d)
      out.above += sums[d], out.count += counts[d];
    prefix |= d << shift, known |= digit << shift;
  }
  out.value = std::bit_cast<float>(prefix);
  return out;
}

// Sums of every `block` of x[0, n), each in order; four side by side, since each is a chain.
void sum_tiles(const float* x, int64_t n, int64_t block, double* out) {
  constexpr int64_t kTogether = 4;
  const int64_t whole = n / block / kTogether * kTogether;
  for (int64_t t = 0; t < whole; t += kTogether) {
    double sum[kTogether] = {};
    for (int64_t j = 0; j < block; ++j)
      for (int64_t u = 0; u < kTogether; ++u) sum[u] += x[(t + u) * block + j];
    std::copy(sum, sum + kTogether, out + t);
  }
  for (int64_t j = whole * block; j < n; ++j) out[j / block] += x[j];
}

}  // namespace

ProbeTiles probe_tiles(const Ctx& ctx, const Inputs& x, int block, double gamma) {
  const Problem& p = x.problem;
  ProbeTiles out;
  const int64_t length = std::max<int64_t>(1, p.offset + p.nq), keys = std::min(p.nk, length);
  out.batch = p.batch, out.heads = p.heads, out.block = block;
  out.columns = (keys + block - 1) / block, out.diagonals = (length + block - 1) / block;
  const int64_t heads = p.batch * p.heads;
  out.vertical_tokens.assign(size_t(heads), 0), out.slash_tokens.assign(size_t(heads), 0);
  if (x.q.device == Device::cuda) {
    const StageTimer timer(ctx, "estimate.probe_tiles");
    device::probe_tiles(x, keys, length, gamma, ctx.stream, &out);
    return out;
  }
  const VerticalSlash probe = vertical_slash(ctx, x, block);
  const StageTimer timer(ctx, "estimate.probe_tiles");
  out.vertical.assign(size_t(heads * out.columns), 0.0);
  out.slash.assign(size_t(heads * out.diagonals), 0.0);
  parallel_for(2 * heads, ctx.threads, [&](int64_t item, int) {
    const int64_t bh = item / 2;
    const bool slash = item % 2;
    const float* const shares =
        slash ? &probe.slash[bh * probe.offsets] : &probe.vertical[bh * probe.nk];
    const int64_t n = slash ? length : keys;
    sum_tiles(shares, n, block,
              slash ? &out.slash[bh * out.diagonals] : &out.vertical[bh * out.columns]);
    if (gamma > 0)
      (slash ? out.slash_tokens : out.vertical_tokens)[bh] =
          units::fewest(crossing(shares, n, gamma), n, gamma);
  });
  return out;
}

}  // namespace regard::estimate
