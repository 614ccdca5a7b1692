#include "cli/run_mass.h"

#include <algorithm>
#include <cmath>

#include "regard/run.h"

namespace regard::cli {
namespace {

bool defined(const Plan& plan, const Inputs& x) {
  if (plan.combine == Combine::gated || x.norm.kind != NormKind::softmax) return false;
  return std::all_of(plan.branches.begin(), plan.branches.end(),
                     [](const Branch& b) { return b.source.kind == SourceKind::raw; });
}

Tensor lse_of(const Plan& plan, const Inputs& x, int threads) {
  const Problem& p = plan.problem;
  const Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensor lse = make_tensor(DType::f32, {p.batch, p.heads, p.nq, 1});
  RunOptions options;
  options.threads = threads;
  attend(plan, x.q, x.k, x.v, {out.view, lse.view, {}}, options);
  return lse;
}

}  // namespace

Tensor exact_lse(const Inputs& x, int threads) {
  return lse_of(Plan::all(x.problem).causal(x.causal).score(x.score).norm(x.norm), x, threads);
}

std::vector<double> mass_kept(const Plan& plan, const Inputs& x, int threads) {
  if (!defined(plan, x)) return {};
  return mass_kept(plan, x, exact_lse(x, threads), threads);
}

// exp(lse over the plan - lse over all) is the share of a row's probability inside the plan.
std::vector<double> mass_kept(const Plan& plan, const Inputs& x, const Tensor& full, int threads) {
  if (!defined(plan, x)) return {};
  const Problem& p = plan.problem;
  Plan same_score = plan;
  same_score.score(x.score).norm(x.norm);
  const Tensor part = lse_of(same_score, x, threads);
  std::vector<double> out;
  for (int64_t h = 0; h < p.heads; ++h) {
    double kept = 0;
    for (int64_t b = 0; b < p.batch; ++b) {
      const float* in = reinterpret_cast<const float*>(part.view.at(b, h, 0));
      const float* all = reinterpret_cast<const float*>(full.view.at(b, h, 0));
      for (int64_t i = 0; i < p.nq; ++i)  // a row without keys has lost nothing
        kept += std::isinf(all[i]) ? 1 : std::min(1.0, std::exp(double(in[i]) - double(all[i])));
    }
    out.push_back(kept / double(p.batch * p.nq));
  }
  return out;
}

}  // namespace regard::cli
