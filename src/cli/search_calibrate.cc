#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "cli/run_interrupt.h"
#include "cli/search_calibrate.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// As plan_by_head tells them apart.
std::string kind_of(const Branch& b) {
  const Window w = b.cover.kind == CoverKind::band ? b.cover.band : b.rule.window;
  return fmt::format("{} {} {} {} {}", b.cover.kind == CoverKind::columns, w.left, w.right, w.sink,
                     b.value_skip);
}

// Why a plan cannot be one head's part of a profile, or empty.
std::string unfit(const Plan& plan, const Inputs& x) {
  if (plan.combine == Combine::gated) return "has gated branches";
  for (const Branch& b : plan.branches) {
    if (b.source.kind != SourceKind::raw) return "reads pooled keys";
    if (b.order) return "permutes its axes";
    if (b.weight.kind != WeightKind::exponential) return "weighs by features";
    if (b.source.value_map) return "maps its values";
    if (b.rule.mask) return "has a mask of pairs";
    if (b.score.softcap != x.score.softcap || b.score.alibi != x.score.alibi ||
        b.norm.kind != x.norm.kind)
      return "changes the scores";
  }
  return "";
}

}  // namespace

Calibration::Calibration(std::vector<Method> candidates, int64_t from, int threads)
    : candidates_(std::move(candidates)), from_(from), threads_(threads) {}

void Calibration::add(const ggml::Node& node) {
  if (!node.inputs || !node.inputs->causal || node.offset < from_ || node.layer < 0) return;
  const Inputs& x = *node.inputs;
  const Problem& p = x.problem;
  LayerFacts& layer = layers_[node.layer];
  layer.heads.resize(candidates_.size(), std::vector<HeadFacts>(size_t(p.heads)));
  layer.kinds.resize(candidates_.size());
  const Tensor exact = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  RunOptions options;
  options.threads = threads_;
  for (size_t c = 0; c < candidates_.size(); ++c) {
    check_interrupt();
    const std::string spec = candidates_[c].spec();
    if (refused_.count(spec)) continue;
    std::string why = refusal(candidates_[c], x);
    Plan plan;
    const auto begin = Clock::now();
    try {
      if (why.empty()) plan = make_plan(candidates_[c], x, {threads_, nullptr});
      if (why.empty()) why = unfit(plan, x);
    } catch (const Error& e) {
      why = e.what();
    }
    if (!why.empty()) {
      refused_[spec] = why;
      for (auto& [_, other] : layers_) other.kinds[c].clear();  // what it cost so far is not all
      continue;
    }
    const double planning = since(begin);
    const auto start = Clock::now();
    attend(plan, x.q, x.k, x.v, {(c == 0 ? exact : out).view, {}, {}}, options);
    const double reading = since(start);
    const Cost paid = cost(plan);
    for (const Branch& b : plan.branches) layer.kinds[c].insert(kind_of(b));
    for (int64_t h = 0; h < p.heads; ++h) {
      HeadFacts& f = layer.heads[c][size_t(h)];
      f.pairs += paid.head_pairs[size_t(h)];
      f.seconds += planning / double(p.heads) +
                   reading * paid.head_pairs[size_t(h)] / std::max(1.0, paid.pairs);
      const float* e = reinterpret_cast<const float*>(exact.view.at(0, h, 0));
      const float* o = reinterpret_cast<const float*>((c == 0 ? exact : out).view.at(0, h, 0));
      for (int64_t i = 0; i < p.nq * p.dv; ++i) {
        f.error += (double(o[i]) - e[i]) * (double(o[i]) - e[i]);
        f.norm += double(e[i]) * e[i];
      }
    }
  }
}

std::vector<int64_t> assign(const LayerFacts& layer, double bound, size_t kinds) {
  const size_t heads = layer.heads[0].size();
  std::set<size_t> open;  // candidates that may be used
  for (size_t c = 0; c < layer.heads.size(); ++c)
    if (!layer.kinds[c].empty()) open.insert(c);
  const auto cheapest = [&](size_t h) {
    size_t best = 0;
    for (const size_t c : open)
      if ((c == 0 || layer.heads[c][h].relative() <= bound) &&
          layer.heads[c][h].seconds < layer.heads[best][h].seconds)
        best = c;
    return best;
  };
  const auto total = [&] {
    double seconds = 0;
    for (size_t h = 0; h < heads; ++h) seconds += layer.heads[cheapest(h)][h].seconds;
    return seconds;
  };
  for (;;) {
    std::set<size_t> used;
    std::set<std::string> kinds_used;
    for (size_t h = 0; h < heads; ++h) {
      used.insert(cheapest(h));
      kinds_used.insert(layer.kinds[cheapest(h)].begin(), layer.kinds[cheapest(h)].end());
    }
    if (kinds_used.size() <= kinds) break;
    // Give up the candidate that is missed least; dense stays, so this ends.
    size_t worst = 0;
    double least = std::numeric_limits<double>::infinity();
    for (const size_t c : used) {
      if (c == 0) continue;
      open.erase(c);
      if (const double seconds = total(); seconds < least) least = seconds, worst = c;
      open.insert(c);
    }
    open.erase(worst);
  }
  std::vector<int64_t> out;
  for (size_t h = 0; h < heads; ++h) out.push_back(int64_t(cheapest(h)));
  return out;
}

}  // namespace regard::cli
