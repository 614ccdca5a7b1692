// regard search: for each head the cheapest method whose error stays under a bound, as a profile.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/frontier.h"
#include "cli/recall.h"
#include "cli/run_files.h"
#include "cli/run_interrupt.h"
#include "cli/run_progress.h"
#include "cli/run_timed.h"
#include "cli/search_calibrate.h"
#include "cli/verbs.h"
#include "exec/profile.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

constexpr uint64_t kRecallSeed = 0x5ea5c4;  // other needles than a frontier's default

struct Arguments {
  std::string model, text, methods = "all", out, plugin, kv = "f16";
  double bound = 0.05;
  int64_t ctx = 4096, ubatch = 512, from = -1;
  int threads = 0;
  bool verbose = false;
};

void check_args(const Arguments& a) {
  const auto in_range = [](const char* name, double value, double min, double max) {
    if (!(value >= min && value <= max))
      throw Error(fmt::format("search: {} {}; accepted: {}..{}", name, value, min, max));
  };
  in_range("--threads", a.threads, 1, 4 * hardware_threads());
  in_range("--ubatch", double(a.ubatch), 64, 65536);
  in_range("--ctx", double(a.ctx), 128, INT32_MAX);
  in_range("--bound", a.bound, 0, 10);
  check_writable("profile", a.out);
  for (const std::string& input : {a.model, a.text})
    if (same_file(a.out, input))
      throw Error(fmt::format("search: --out '{}' would replace an input", a.out));
}

// Dense first, then every setting that could be some head's.
std::vector<Method> candidates(const std::string& list) {
  std::vector<Method> out{parse_method("dense")};
  for (const Setting& s : frontier_settings(list, {}))
    if (s.not_on_model.empty() && s.not_at_all.empty() && s.method != "dense")
      out.push_back(parse_method(s.spec));
  if (out.size() < 2)
    throw Error(fmt::format("search: --methods '{}' names none that can run on a model", list));
  return out;
}

// The second half of the text, where there is enough: what is judged later is read from the
// beginning, and must not have been calibrated on. Its end repeats passages and asks for needles.
struct Calibrated {
  std::unique_ptr<Calibration> facts;
  int64_t tokens = 0;
  bool recall = false;
};
Calibrated calibrate(const Arguments& a, const std::vector<Method>& all, const std::string& text) {
  ggml::Control& control = load_plugin(a.plugin);
  const Model model(a.model, a.verbose);
  std::vector<int32_t> tokens = model.tokenize(text);
  const int64_t read = int64_t(tokens.size());
  const int64_t from = a.from >= 0 ? a.from : read >= 2 * a.ctx ? read / 2 : 0;
  if (from >= read)
    throw Error(fmt::format("search: --from {}; the text has {} tokens", from, read));
  tokens.erase(tokens.begin(), tokens.begin() + from);
  tokens.resize(std::min({tokens.size(), size_t(a.ctx), size_t(model.train_ctx())}));
  Calibrated out;
  out.tokens = int64_t(tokens.size());
  if (out.tokens < 2 * a.ubatch)
    throw Error(fmt::format("search: {} tokens; at least two micro-batches of {} are needed",
                            tokens.size(), a.ubatch));
  RecallTask task = recall_task(
      tokens, [&](const std::string& s) { return model.tokenize_piece(s); }, kRecallSeed);
  out.recall = task.why_not.empty();
  int64_t recall = out.tokens;
  if (out.recall) {
    tokens = std::move(task.tokens);
    recall = task.positions[0] / a.ubatch * a.ubatch;
  }
  // Long contexts are what it is for: the second half of the document decides.
  out.facts =
      std::make_unique<Calibration>(all, out.tokens / 2 / a.ubatch * a.ubatch, recall, a.threads);
  Progress bar(1, out.tokens);
  const std::vector<int64_t> nowhere;
  TimedPass p;
  p.draw = [&](const ggml::Node& n) { out.facts->add(n); };
  p.pass.ubatch = a.ubatch;
  p.pass.threads = a.threads;
  p.pass.kv = a.kv;
  p.pass.tokens = &tokens;
  p.pass.positions = &nowhere;
  p.pass.warm_up = false;
  p.pass.progress = [&](int64_t done) { bar.update(done); };
  bar.begin("calibration");
  timed_pass(model, control, p);
  return out;
}

int run_search(const Arguments& a) {
  check_args(a);
  const std::vector<Method> all = candidates(a.methods);
  const std::string text = read_text(a.text);
  check_gguf(a.model);
  const InterruptGuard guard;
  Calibrated calibrated;
  try {
    calibrated = calibrate(a, all, text);
  } catch (const Interrupted&) {
    std::fputs("regard: search: interrupted; no file was written\n", stderr);
    return 130;
  }
  const Calibration& calibration = *calibrated.facts;
  if (calibration.layers().empty())
    throw Error(fmt::format(
        "search: no causal attention after token {}; a longer text or a smaller --ctx is needed",
        calibrated.tokens / 2));
  Profile profile;
  std::map<int64_t, int64_t> index;  // candidate -> method of the profile
  double dense_s = 0, chosen_s = 0, dense_pairs = 0, chosen_pairs = 0;
  const auto chosen = assign(calibration.layers(), a.bound);
  for (const auto& [layer, facts] : calibration.layers()) {
    const std::vector<int64_t>& heads = chosen.at(layer);
    std::map<int64_t, int64_t> used;
    for (size_t h = 0; h < heads.size(); ++h) {
      const int64_t c = heads[h];
      if (index.emplace(c, int64_t(profile.methods.size())).second)
        profile.methods.push_back(all[size_t(c)]);
      profile.layers[layer].push_back(index.at(c));
      ++used[c];
      dense_s += facts.heads[0][h].seconds;
      dense_pairs += facts.heads[0][h].pairs;
      chosen_s += facts.heads[size_t(c)][h].seconds;
      chosen_pairs += facts.heads[size_t(c)][h].pairs;
    }
    std::string line;
    for (const auto& [c, n] : used)
      line += fmt::format("{}{} x {}", line.empty() ? "" : ", ", n, all[size_t(c)].spec());
    fmt::print("layer {:>3}: {}\n", layer, line);
  }
  const nlohmann::ordered_json remarks = {
      {"model", a.model},
      {"text", a.text},
      {"tokens", calibrated.tokens},
      {"recall", calibrated.recall},
      {"bound", a.bound},
      {"error", "|out - exact| / |exact| of a layer's heads over the second half, rms over layers"},
      {"refused", calibration.refused()}};
  write_file("profile", a.out, profile_json(profile, remarks.dump()));
  for (const auto& [spec, why] : calibration.refused())
    fmt::print("not tried: {}: {}\n", spec, why);
  fmt::print(
      "{:.1f} % of the pairs, {:.2f} x less attention time than dense as timed head by head; "
      "wrote {}\n",
      100 * chosen_pairs / dense_pairs, dense_s / chosen_s, a.out);
  return 0;
}

}  // namespace

void add_search(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  a->threads = hardware_threads();
  CLI::App* verb = app.add_subcommand(
      "search", "Choose for each head of a model the cheapest method that is good enough");
  verb->add_option("model", a->model, "GGUF file of a decoder-only model")->required();
  verb->add_option("text", a->text, "UTF-8 text to calibrate on")->required();
  verb->add_option("--out", a->out, "profile to write, for regard run --profile and REGARD_PROFILE")
      ->type_name("FILE")
      ->required();
  verb->add_option(
          "--bound", a->bound,
          "relative error of attention's output, |out - exact| / |exact| over the heads of a "
          "layer, root mean square over layers")
      ->capture_default_str();
  verb->add_option("--methods", a->methods, "candidates, as regard frontier takes them")
      ->capture_default_str();
  verb->add_option("--ctx", a->ctx, "tokens read at most")->capture_default_str();
  verb->add_option("--from", a->from,
                   "first token read (default: the middle of the text where it is long enough, so "
                   "that runs from its beginning are on other text)");
  verb->add_option("--ubatch", a->ubatch, "queries a micro-batch")->capture_default_str();
  verb->add_option("--kv", a->kv, "type of the KV cache")->capture_default_str();
  verb->add_option("--threads", a->threads, "threads for everything")->capture_default_str();
  verb->add_option("--plugin", a->plugin,
                   "plug-in to load (default: libggml-regard.so beside this program)")
      ->type_name("FILE");
  verb->add_flag("--verbose", a->verbose, "show llama.cpp's log");
  verb->footer(
      "Example:\n  regard search model.gguf book.txt --bound 0.1 --out profile.json\n  regard run "
      "model.gguf book.txt --profile profile.json");
  verb->callback([a] {
    if (const int code = run_search(*a); code != 0) throw CLI::RuntimeError(code);
  });
}

}  // namespace regard::cli
