#include "cli/frontier_planted.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/run_mass.h"
#include "exec/planted.h"
#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"
#include "stages/estimate.h"

namespace regard::cli {
namespace {

constexpr int64_t kHeads = 2, kDim = 64, kTile = 64;
constexpr int kPoints = 48;  // of a curve

// Points [share of pairs, share of mass] of taking `items` (mass, pairs) in the best order.
Json curve(std::vector<std::pair<float, float>> items) {
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return a.first * b.second > b.first * a.second;  // mass a pair, without dividing
  });
  double pairs = 0, mass = 0;
  for (const auto& [m, n] : items) mass += m, pairs += n;
  Json out = Json::array();
  double kept = 0, read = 0;
  const double finest = 1e-4;  // of the pairs; the axis is logarithmic
  int point = 0;
  for (const auto& [m, n] : items) {
    kept += m, read += n;
    if (read / pairs < std::pow(finest, 1 - double(point) / (kPoints - 1))) continue;
    while (point < kPoints && read / pairs >= std::pow(finest, 1 - double(point) / (kPoints - 1)))
      ++point;
    out.push_back({read / pairs, kept / mass});
  }
  return out;
}

// Exact probabilities, pair by pair, of the first head: the others are of its kind.
std::vector<std::pair<float, float>> pair_items(const Inputs& x) {
  std::vector<std::pair<float, float>> out;
  const Problem& p = x.problem;
  std::vector<float> row(size_t(p.nk));
  for (int64_t i = 0; i < p.nq; ++i) {
    const float* q = reinterpret_cast<const float*>(x.q.at(0, 0, i));
    float best = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= i; ++j) {
      const float* k = reinterpret_cast<const float*>(x.k.at(0, 0, j));
      row[size_t(j)] = p.scale * std::inner_product(q, q + p.dk, k, 0.f);
      best = std::max(best, row[size_t(j)]);
    }
    for (int64_t j = 0; j <= i; ++j) sum += row[size_t(j)] = std::exp(row[size_t(j)] - best);
    for (int64_t j = 0; j <= i; ++j) out.emplace_back(row[size_t(j)] / sum, 1.f);
  }
  return out;
}

std::vector<std::pair<float, float>> tile_items(const Inputs& x, int threads) {
  const BlockScores mass = estimate::block_mass({threads, nullptr}, x, kTile, kTile);
  std::vector<std::pair<float, float>> out;
  for (int64_t h = 0; h < mass.heads; ++h)
    for (int64_t r = 0; r < mass.rows; ++r)
      for (int64_t c = 0; c <= r; ++c) {
        const int64_t side = std::min(kTile, x.problem.nq - r * kTile);
        const double pairs = c == r ? double(side * (side + 1)) / 2 : double(side * kTile);
        out.emplace_back(mass.row(0, h, r)[c], float(pairs));
      }
  return out;
}

}  // namespace

PlantedAxis::PlantedAxis(int64_t tokens, int threads, uint64_t seed)
    : tokens_(tokens), threads_(threads) {
  Problem p;
  p.heads = p.kv_heads = kHeads;
  p.nq = p.nk = tokens;
  p.dk = p.dv = kDim;
  for (const PlantedKind& kind : planted_kinds()) {
    if (std::string(kind.name) == "mixed") continue;  // the others, one a head
    const Planted made = planted(kind.name, p, seed);
    Input in{kind.name, made.q, made.k, made.v, {}, {}};
    in.x.q = in.q.view, in.x.k = in.k.view, in.x.v = in.v.view;
    in.x.problem = Problem::of_views(in.x.q, in.x.k, in.x.v);
    in.full = exact_lse(in.x, threads);
    inputs_.push_back(std::move(in));
  }
}

Json PlantedAxis::best() const {
  Json out = {{"kind", "best"}, {"tokens", tokens_}, {"inputs", Json::array()}};
  for (const Input& in : inputs_)
    out["inputs"].push_back({{"input", in.name},
                             {"pairs", curve(pair_items(in.x))},
                             {"tiles", curve(tile_items(in.x, threads_))}});
  return out;
}

Json PlantedAxis::row(const Setting& s) const {
  Json out = {{"kind", "planted"},  {"name", s.spec},    {"method", s.method},
              {"family", s.family}, {"tokens", tokens_}, {"points", Json::array()}};
  const Method m = parse_method(s.spec);
  for (const Input& in : inputs_) {
    Json point = {{"input", in.name}};
    try {
      const auto begin = std::chrono::steady_clock::now();
      const Plan plan = make_plan(m, in.x, {threads_, nullptr});
      const std::chrono::duration<double> planning = std::chrono::steady_clock::now() - begin;
      const Problem& p = in.x.problem;
      const Tensor o = make_tensor(DType::f32, {1, p.heads, p.nq, p.dv});
      RunOptions options;
      options.threads = threads_;
      const auto start = std::chrono::steady_clock::now();
      attend(plan, in.x.q, in.x.k, in.x.v, {o.view, {}, {}}, options);
      const std::chrono::duration<double> running = std::chrono::steady_clock::now() - start;
      const Cost c = cost(plan);
      const std::vector<double> mass = mass_kept(plan, in.x, in.full, threads_);
      point["density"] = c.density();
      point["tile_density"] = c.tile_pairs / c.causal_pairs;
      point["mass"] =
          mass.empty() ? Json(nullptr)
                       : Json(std::accumulate(mass.begin(), mass.end(), 0.0) / double(mass.size()));
      point["plan_s"] = planning.count();
      point["attend_s"] = running.count();
    } catch (const Error& e) {
      point["refusal"] = e.what();
    }
    out["points"].push_back(std::move(point));
  }
  return out;
}

}  // namespace regard::cli
