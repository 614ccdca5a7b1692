#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "cli/run_interrupt.h"
#include "cli/search_calibrate.h"
#include "exec/profile.h"
#include "plan/by_head.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Why a plan cannot be one head's part of a profile, or empty.
std::string unfit(const Plan& plan, const Inputs& x) {
  if (const char* why = not_by_head(plan)) return std::string("has ") + why;
  for (const Branch& b : plan.branches)
    if (b.score.softcap != x.score.softcap || b.score.alibi != x.score.alibi ||
        b.norm.kind != x.norm.kind)
      return "changes the scores";
  return "";
}

// Every head planned without its neighbours and read by a list of its own, as where they have other
// methods: shared probes and shared packing would make every setting look cheaper than it is then.
Profile each_by_itself(const Method& m, int64_t layer, int64_t heads) {
  Profile out;
  out.path = m.spec();
  out.methods.assign(size_t(heads), m);
  for (int64_t h = 0; h < heads; ++h) out.layers[layer].push_back(h);
  return out;
}

}  // namespace

Calibration::Calibration(std::vector<Method> candidates, int64_t from, int64_t recall, int threads)
    : candidates_(std::move(candidates)), from_(from), recall_(recall), threads_(threads) {}

void Calibration::add(const ggml::Node& node) {
  if (!node.inputs || !node.inputs->causal || node.offset < from_ || node.layer < 0) return;
  const Inputs& x = *node.inputs;
  const Problem& p = x.problem;
  const Part part = node.offset < recall_ ? kPlain : kRecall;
  LayerFacts& layer = layers_[node.layer];
  layer.heads.resize(candidates_.size(), std::vector<HeadFacts>(size_t(p.heads)));
  layer.kinds.resize(candidates_.size());
  layer.group = p.group();
  const Tensor exact = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  RunOptions options;
  options.threads = threads_;
  for (size_t c = 0; c < candidates_.size(); ++c) {
    check_interrupt();
    const std::string spec = candidates_[c].spec();
    if (refused_.count(spec)) continue;
    const Profile apart = each_by_itself(candidates_[c], node.layer, p.heads);
    std::string why = refusal(candidates_[c], x);
    Plan plan;
    double planning = 0, jointly = 0;
    try {
      const auto begin = Clock::now();
      if (why.empty()) make_plan(candidates_[c], x, {threads_, nullptr});
      jointly = since(begin);
      if (why.empty()) plan = make_plan(apart, node.layer, x, {threads_, nullptr});
      planning = since(begin) - jointly;
      if (why.empty()) why = unfit(plan, x);
    } catch (const Error& e) {
      why = e.what();
    }
    if (!why.empty()) {
      refused_[spec] = why;
      for (auto& [_, other] : layers_) other.kinds[c].clear();  // what it cost so far is not all
      continue;
    }
    const auto start = Clock::now();
    attend(plan, x.q, x.k, x.v, {(c == 0 ? exact : out).view, {}, {}}, options);
    const double reading = since(start);
    const Cost paid = cost(plan);
    layer.kinds[c].merge(head_kinds(plan));
    for (int64_t h = 0; h < p.heads; ++h) {
      HeadFacts& f = layer.heads[c][size_t(h)];
      f.pairs += paid.head_pairs[size_t(h)];
      const double own = reading * paid.head_pairs[size_t(h)] / std::max(1.0, paid.pairs);
      f.seconds += planning / double(p.heads) + own;
      f.together += jointly / double(p.heads) + own;
      const float* e = reinterpret_cast<const float*>(exact.view.at(0, h, 0));
      const float* o = reinterpret_cast<const float*>((c == 0 ? exact : out).view.at(0, h, 0));
      for (int64_t i = 0; i < p.nq * p.dv; ++i) {
        f.error[part] += (double(o[i]) - e[i]) * (double(o[i]) - e[i]);
        f.norm[part] += double(e[i]) * e[i];
      }
    }
  }
}

namespace {

// [candidate][head]: |out - exact|^2 as a share of the whole layer's |exact|^2, the worse part.
using Errors = std::vector<std::vector<double>>;
Errors shares_of_error(const LayerFacts& layer) {
  double norm[kParts] = {};
  for (const HeadFacts& f : layer.heads[0])
    for (int part = 0; part < kParts; ++part) norm[part] += f.norm[part];
  Errors out;
  for (const std::vector<HeadFacts>& heads : layer.heads) {
    out.emplace_back(heads.size());
    for (size_t h = 0; h < heads.size(); ++h)
      for (int part = 0; part < kParts; ++part)
        if (norm[part] > 0)
          out.back()[h] = std::max(out.back()[h], heads[h].error[part] / norm[part]);
  }
  return out;
}

struct Choice {
  std::vector<int64_t> heads;
  double error = 0;  // squared, relative
};

// The least seconds + rate * error, by head or by the heads of a KV head together.
Choice choose(const LayerFacts& layer, const Errors& errors, double rate, size_t kinds) {
  const size_t heads = layer.heads[0].size();
  std::set<size_t> open;  // candidates that may be used
  for (size_t c = 0; c < layer.heads.size(); ++c)
    if (!layer.kinds[c].empty()) open.insert(c);
  const size_t group = size_t(layer.group);
  struct Picked {
    std::vector<size_t> heads;
    double price = 0;
  };
  const auto pick = [&] {
    Picked out;
    for (size_t first = 0; first < heads; first += group) {
      Picked best;  // head by head
      for (size_t h = first; h < first + group; ++h) {
        const auto price = [&](size_t c) {
          return layer.heads[c][h].seconds + rate * errors[c][h];
        };
        size_t cheapest = 0;
        for (const size_t c : open)
          if (price(c) < price(cheapest)) cheapest = c;
        best.heads.push_back(cheapest);
        best.price += price(cheapest);
      }
      for (const size_t c : open) {  // or all alike
        if (group == 1) break;
        double price = 0;
        for (size_t h = first; h < first + group; ++h)
          price += layer.heads[c][h].together + rate * errors[c][h];
        if (price < best.price) best = {std::vector<size_t>(group, c), price};
      }
      out.heads.insert(out.heads.end(), best.heads.begin(), best.heads.end());
      out.price += best.price;
    }
    return out;
  };
  Picked picked = pick();
  for (;; picked = pick()) {
    const std::set<size_t> used(picked.heads.begin(), picked.heads.end());
    std::set<HeadKind> kinds_used;
    for (const size_t c : used) kinds_used.insert(layer.kinds[c].begin(), layer.kinds[c].end());
    if (kinds_used.size() <= kinds) break;
    // Give up the candidate that is missed least; dense stays, so this ends.
    size_t worst = 0;
    double least = std::numeric_limits<double>::infinity();
    for (const size_t c : used) {
      if (c == 0) continue;
      open.erase(c);
      if (const double price = pick().price; price < least) least = price, worst = c;
      open.insert(c);
    }
    open.erase(worst);
  }
  Choice out;
  for (size_t h = 0; h < heads; ++h) {
    const size_t c = picked.heads[h];
    out.heads.push_back(int64_t(c));
    out.error += errors[c][h];
  }
  return out;
}

}  // namespace

std::map<int64_t, std::vector<int64_t>> assign(const Layers& layers, double bound, size_t kinds) {
  double all = 0;  // seconds of dense attention: the unit of the rate
  std::map<int64_t, Errors> errors;
  for (const auto& [l, layer] : layers) {
    for (const HeadFacts& f : layer.heads[0]) all += f.seconds;
    errors[l] = shares_of_error(layer);
  }
  std::map<int64_t, std::vector<int64_t>> out;
  // Fills `out` for one rate; whether the error stays within the bound.
  const auto choose_all = [&](double log_rate) {
    double error = 0;
    for (const auto& [l, layer] : layers) {
      Choice c = choose(layer, errors.at(l), all * std::exp2(log_rate), kinds);
      error += c.error / double(layers.size());
      out[l] = std::move(c.heads);
    }
    return error <= bound * bound;
  };
  double cheap = -30, exact = 60;
  while (exact - cheap > 0.1) {
    const double middle = (cheap + exact) / 2;
    (choose_all(middle) ? exact : cheap) = middle;
  }
  choose_all(exact);
  return out;
}

}  // namespace regard::cli
