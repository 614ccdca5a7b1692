// regard search: for each head the cheapest method whose error stays under a bound, as a profile.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/frontier.h"
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

void calibrate(const Arguments& a, const std::string& text, Calibration* calibration,
               int64_t* tokens_read) {
  ggml::Control& control = load_plugin(a.plugin);
  const Model model(a.model, a.verbose);
  std::vector<int32_t> tokens = model.tokenize(text);
  // The second half of the text, where there is enough: what is judged later is read from the
  // beginning, and must not have been calibrated on.
  const int64_t all = int64_t(tokens.size());
  const int64_t from = a.from >= 0 ? a.from : all >= 2 * a.ctx ? all / 2 : 0;
  if (from >= all) throw Error(fmt::format("search: --from {}; the text has {} tokens", from, all));
  tokens.erase(tokens.begin(), tokens.begin() + from);
  tokens.resize(std::min({tokens.size(), size_t(a.ctx), size_t(model.train_ctx())}));
  *tokens_read = int64_t(tokens.size());
  if (*tokens_read < 2 * a.ubatch)
    throw Error(fmt::format("search: {} tokens; at least two micro-batches of {} are needed",
                            tokens.size(), a.ubatch));
  Progress bar(1, *tokens_read);
  const std::vector<int64_t> nowhere;
  TimedPass p;
  p.draw = [&](const ggml::Node& n) { calibration->add(n); };
  p.pass.ubatch = a.ubatch;
  p.pass.threads = a.threads;
  p.pass.kv = a.kv;
  p.pass.tokens = &tokens;
  p.pass.positions = &nowhere;
  p.pass.warm_up = false;
  p.pass.progress = [&](int64_t done) { bar.update(done); };
  bar.begin("calibration");
  timed_pass(model, control, p);
}

int run_search(const Arguments& a) {
  check_args(a);
  const std::vector<Method> all = candidates(a.methods);
  const std::string text = read_text(a.text);
  check_gguf(a.model);
  const InterruptGuard guard;
  // Long contexts are what it is for: the second half of the document decides.
  Calibration calibration(all, std::min<int64_t>(a.ctx, 1 << 20) / 2 / a.ubatch * a.ubatch,
                          a.threads);
  int64_t tokens = 0;
  try {
    calibrate(a, text, &calibration, &tokens);
  } catch (const Interrupted&) {
    std::fputs("regard: search: interrupted; no file was written\n", stderr);
    return 130;
  }
  if (calibration.layers().empty())
    throw Error(fmt::format(
        "search: no causal attention after token {}; a longer text or a smaller --ctx is needed",
        a.ctx / 2));
  Profile profile;
  std::map<int64_t, int64_t> index;  // candidate -> method of the profile
  double dense_s = 0, chosen_s = 0, dense_pairs = 0, chosen_pairs = 0;
  for (const auto& [layer, facts] : calibration.layers()) {
    const std::vector<int64_t> heads = assign(facts, a.bound);
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
      {"tokens", tokens},
      {"bound", a.bound},
      {"error", "|out - exact| / |exact| of a head over the second half"},
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
  verb->add_option("--bound", a->bound,
                   "largest relative error of a head's output, |out - exact| / |exact|")
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
