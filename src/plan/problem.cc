#include "regard/problem.h"

#include <fmt/format.h>

#include <cmath>

#include "regard/status.h"

namespace regard {
namespace {

void check_lengths(const char* name, const std::vector<int64_t>& cu, int64_t n) {
  bool ok = cu.size() >= 2 && cu.front() == 0 && cu.back() == n;
  for (size_t i = 1; ok && i < cu.size(); ++i) ok = cu[i] >= cu[i - 1];
  if (!ok)
    throw Error(fmt::format(
        "problem: {} must rise from 0 to {} (cumulative lengths of packed sequences)", name, n));
}

}  // namespace

std::string Problem::str() const {
  std::string s = fmt::format("b{} h{}:{} nq{} nk{} d{}", batch, heads, kv_heads, nq, nk, dk);
  if (dv != dk) s += fmt::format(":{}", dv);
  if (offset != nk - nq) s += fmt::format(" offset{}", offset);
  if (!cu_q.empty()) s += fmt::format(" packed{}", cu_q.size() - 1);
  return s;
}

void Problem::check() const {
  constexpr int64_t kMax = int64_t(1) << 31;
  if (batch < 1 || heads < 1 || kv_heads < 1 || nq < 0 || nk < 0 || dk < 1 || dv < 1)
    throw Error(fmt::format("problem: sizes must be positive, got {}", str()));
  if (nq >= kMax || nk >= kMax)
    throw Error(fmt::format("problem: at most 2^31 - 1 tokens, got {}", str()));
  if (heads % kv_heads != 0)
    throw Error(fmt::format("problem: query heads must be a multiple of KV heads, got {} and {}",
                            heads, kv_heads));
  if (!std::isfinite(scale))
    throw Error(fmt::format("problem: scale must be finite, got {}", scale));
  if (cu_q.empty() != cu_k.empty() || cu_q.size() != cu_k.size())
    throw Error("problem: cu_q and cu_k must describe the same number of sequences");
  if (!cu_q.empty()) {
    check_lengths("cu_q", cu_q, nq);
    check_lengths("cu_k", cu_k, nk);
  }
}

Problem Problem::of_views(const View& q, const View& k, const View& v, float scale) {
  const auto refuse = [&](const char* why) {
    throw Error(fmt::format(
        "attention: {}; got q {}, k {}, v {}; accepted: q [B,H,Nq,Dk], k [B,Hkv,Nk,Dk], "
        "v [B,Hkv,Nk,Dv] with Hkv dividing H",
        why, q.shape(), k.shape(), v.shape()));
  };
  if (q.size[0] != k.size[0] || k.size[0] != v.size[0]) refuse("batch sizes differ");
  if (k.size[1] != v.size[1]) refuse("k and v have different heads");
  if (k.size[1] < 1 || q.size[1] < 1 || q.size[1] % k.size[1] != 0)
    refuse("query heads are no multiple of KV heads");
  if (k.size[2] != v.size[2]) refuse("k and v have different lengths");
  if (q.size[3] != k.size[3]) refuse("q and k have different channels");
  if (info(q.dtype).block != 1 || q.dtype == DType::i32) refuse("q must be f64, f32, f16 or bf16");
  if (k.dtype == DType::i32 || v.dtype == DType::i32) refuse("k and v cannot be integers");
  Problem p;
  p.batch = q.size[0];
  p.heads = q.size[1];
  p.kv_heads = k.size[1];
  p.nq = q.size[2];
  p.nk = k.size[2];
  p.dk = q.size[3];
  p.dv = v.size[3];
  p.offset = p.nk - p.nq;
  p.scale = std::isnan(scale) ? 1 / std::sqrt(float(p.dk)) : scale;
  p.check();
  return p;
}

}  // namespace regard
