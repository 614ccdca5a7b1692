#include "cli/frontier_model.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/run_pictures.h"
#include "cli/run_report.h"
#include "regard/method.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

constexpr int64_t kLayers = 4;         // pictured and measured for mass
constexpr int64_t kPictureCells = 64;  // a side
constexpr int64_t kPictureHeads = 3;   // kept of each pictured layer

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

// As a shell takes it.
std::string quoted(const std::string& s) {
  const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+-#";
  if (!s.empty() && s.find_first_not_of(plain) == std::string::npos) return s;
  std::string out = "'";
  for (const char c : s) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

// First, middle and last of `n`.
std::vector<int64_t> some_heads(int64_t n) {
  if (n <= kPictureHeads) {
    std::vector<int64_t> all;
    for (int64_t h = 0; h < n; ++h) all.push_back(h);
    return all;
  }
  return {0, n / 2, n - 1};
}

Json density_by_head(const PairCounts& pairs) {
  Json out = Json::array();
  for (size_t l = 0; l < pairs.kept.size(); ++l) {
    Json row = Json::array();
    for (size_t h = 0; h < pairs.kept[l].size(); ++h) {
      const double d = pairs.at(int64_t(l), int64_t(h));
      row.push_back(number(std::round(d * 1e4) / 1e4));
    }
    out.push_back(std::move(row));
  }
  return out;
}

// {cell, grid, plans: [{layer, head, mass, map}]} and the mean mass of all heads of those layers.
Json pictures_json(const Pictures& pictures, double* mass) {
  Json out = {{"cell", pictures.cell()}, {"grid", pictures.grid()}, {"plans", Json::array()}};
  const auto layers = pictures.finish();
  double sum = 0;
  int64_t known = 0, heads = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    for (const HeadPicture& p : layers[l]) {
      known += p.mass_kept >= 0;
      sum += std::max(0.0, p.mass_kept);
      ++heads;
    }
    for (const int64_t h : some_heads(int64_t(layers[l].size())))
      out["plans"].push_back({{"layer", pictures.layers()[l]},
                              {"head", h},
                              {"map", base64(layers[l][size_t(h)].map)}});
  }
  *mass = known == heads && heads > 0 ? sum / double(heads) : std::nan("");
  return out;
}

}  // namespace

struct LengthRun::Passed {
  Timed timed;
  Scorer::Result score;
  Json recall;
};

LengthRun::LengthRun(const FrontierArgs& args, const Model& model, ggml::Control& control,
                     const std::vector<int32_t>& text, int64_t length, Watcher watcher)
    : args_(args),
      model_(model),
      control_(control),
      watcher_(std::move(watcher)),
      tokens_(text.begin(), text.begin() + length),
      positions_(scored_positions(length, args.ubatch, args.score)) {
  std::vector<int32_t> next;
  for (const int64_t at : positions_) next.push_back(tokens_[size_t(at + 1)]);
  scorer_ = std::make_unique<Scorer>(std::move(next), model.vocab());
  recall_ = recall_task(
      tokens_, [&](const std::string& s) { return model.tokenize_piece(s); }, args.seed);
}

Pass LengthRun::pass(const std::vector<int32_t>& tokens,
                     const std::vector<int64_t>& positions) const {
  Pass p;
  p.ubatch = args_.ubatch;
  p.threads = args_.threads;
  p.kv = args_.kv;
  p.tokens = &tokens;
  p.positions = &positions;
  p.progress = watcher_.update;
  return p;
}

Json LengthRun::recall(const std::string& name, ggml::Mode mode, const std::string& spec,
                       const std::vector<int32_t>& tokens) {
  if (!recall_.why_not.empty()) return {{"why_not", recall_.why_not}};
  watcher_.begin(name + " (recall)");
  RecallScorer scorer(recall_, model_.vocab());
  TimedPass p{mode, spec, false, {}, pass(tokens, recall_.positions)};
  p.pass.warm_up = false;
  p.pass.scored = [&](int64_t i, const float* logits) { scorer.add(i, logits); };
  timed_pass(model_, control_, p);
  watcher_.end();
  return scorer.result();
}

LengthRun::Passed LengthRun::measure(const std::string& name, ggml::Mode mode,
                                     const std::string& spec, Scorer::Role role,
                                     const std::function<void(const ggml::Node&)>& draw) {
  watcher_.begin(name);
  TimedPass p{mode, spec, true, draw, pass(tokens_, positions_)};
  scorer_->begin(role);
  p.pass.scored = [this](int64_t i, const float* logits) { scorer_->add(i, logits); };
  Passed out{timed_pass(model_, control_, p), scorer_->result(), {}};
  watcher_.end();
  if (mode != ggml::Mode::off) out.recall = recall(name, mode, spec, recall_.tokens);
  return out;
}

// What every row says.
Json LengthRun::common(const std::string& spec, const Passed& p) const {
  const Watch& w = p.timed.watch;
  Json j = {{"kind", "row"}, {"length", tokens_.size()}, {"name", spec}};
  j["prefill_s"] = p.timed.seconds;
  j["attention_s"] = w.attention_seconds();
  j["plan_s"] = w.plan_seconds();
  j["stages"] = w.stages();
  j["layer_s"] = w.layer_seconds();
  j["peak_mib"] = p.timed.peak_mib;
  j["calls"] = w.calls();
  j["exact_calls"] = w.exact_calls().empty() ? Json::object() : Json(w.exact_calls());
  j["loss"] = p.score.loss;
  j["scored"] = scorer_->positions();
  j["kl_scored"] = scorer_->compared();
  j["recall"] = p.recall;
  return j;
}

Json LengthRun::llama_row() {
  Passed p = measure("llama.cpp", ggml::Mode::off, "", Scorer::Role::first);
  watcher_.begin("llama.cpp (attention)");
  const std::vector<int64_t> nowhere;
  const Timed attention =
      timed_pass(model_, control_, {ggml::Mode::ggml, "", false, {}, pass(tokens_, nowhere)});
  watcher_.end();
  p.timed.watch = attention.watch;
  Json j = common("llama.cpp", p);
  j["density"] = j["tile_density"] = j["mass_kept"] = 1;
  return j;
}

void LengthRun::reference_only() {
  const Passed p = measure("exact, to compare with", ggml::Mode::exact, "", Scorer::Role::exact);
  layers_ = spread(p.timed.watch.global_layers(), kLayers);
}

Json LengthRun::exact_row() {
  const Passed p = measure("exact", ggml::Mode::exact, "", Scorer::Role::exact);
  layers_ = spread(p.timed.watch.global_layers(), kLayers);
  Json j = common("exact", p);
  j["global_layers"] = p.timed.watch.global_layers();
  j["density"] = j["mass_kept"] = 1;
  j["tile_density"] = p.timed.watch.pairs().tile_density();
  j["loss_rise"] = j["kl"] = 0;
  j["top1"] = 1;
  j["llama_kl"] = scorer_->first_against_exact().kl;
  j["llama_top1"] = scorer_->first_against_exact().top1;
  j["recall_without"] = recall("exact, nothing to recall", ggml::Mode::exact, "", recall_.without);
  return j;
}

Json LengthRun::row(const Setting& s, const Json& llama, const Json& exact) {
  const auto begin = std::chrono::steady_clock::now();
  Pictures pictures(int64_t(tokens_.size()), args_.ubatch, layers_, model_.heads(), args_.threads,
                    kPictureCells);
  const Passed p = measure(s.spec, ggml::Mode::method, s.spec, Scorer::Role::other,
                           [&](const ggml::Node& n) { pictures.add_method(n); });
  const Watch& w = p.timed.watch;
  Json j = common(s.spec, p);
  j["method"] = s.method;
  j["family"] = s.family;
  j["loss_rise"] = p.score.loss - exact.at("loss").get<double>();
  j["kl"] = p.score.kl;
  j["top1"] = p.score.top1;
  j["density"] = w.pairs().density();
  j["tile_density"] = w.pairs().tile_density();
  double mass = 0;
  j["pictures"] = pictures_json(pictures, &mass);
  j["mass_kept"] = number(mass);
  j["density_by_head"] = density_by_head(w.pairs());
  const auto speed = [&](const Json& other, const char* what) {
    return other.at(what).get<double>() / j.at(what).get<double>();
  };
  j["attention_speedup"] = speed(llama, "attention_s");
  j["attention_speedup_exact"] = speed(exact, "attention_s");
  j["prefill_speedup"] = speed(llama, "prefill_s");
  j["command"] = fmt::format(
      "regard run {} {} --ctx {}{} --ubatch {} --threads {} --kv {}{} --score {} --method {}",
      quoted(args_.model), quoted(args_.text), tokens_.size(), args_.force ? " --force" : "",
      args_.ubatch, args_.threads, args_.kv,
      args_.numeric.empty() ? "" : " --numeric " + args_.numeric, args_.score, quoted(s.spec));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  j["took_s"] = took.count();
  return j;
}

}  // namespace regard::cli
