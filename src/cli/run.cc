// regard run: a real model reads a document on llama.cpp's attention, on Regard, and by each
// method.
#include "cli/run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <memory>
#include <optional>
#include <set>

#include "cli/run_files.h"
#include "cli/run_interrupt.h"
#include "cli/run_json.h"
#include "cli/run_model.h"
#include "cli/run_pictures.h"
#include "cli/run_progress.h"
#include "cli/run_report.h"
#include "cli/run_score.h"
#include "cli/run_table.h"
#include "cli/run_timed.h"
#include "cli/run_watch.h"
#include "cli/verbs.h"
#include "exec/profile.h"
#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

// What can be refused without reading the model.
void check_args(const RunArgs& a) {
  const auto in_range = [](const char* name, int64_t value, int64_t min, int64_t max,
                           const char* why) {
    if (value < min || value > max)
      throw Error(fmt::format("run: {} {}; accepted: {}..{}{}", name, value, min, max, why));
  };
  in_range("--threads", a.threads, 1, 4 * hardware_threads(), " (four times the cores here)");
  in_range("--ubatch", a.ubatch, 16, 65536, "");
  if (a.ctx != 0) in_range("--ctx", a.ctx, 1, INT32_MAX, "");
  in_range("--score", a.score, 1, 1 << 20, "");
  in_range("--repeat", a.repeat, 1, 100, "");
  in_range("--picture-layers", a.picture_layers, 1, 1000, "");
  std::set<std::string> seen;
  for (const std::string& spec : a.methods) {
    if (spec[0] == '@')
      load_profile(spec.substr(1));
    else
      parse_method(spec);
    if (!seen.insert(spec).second)
      throw Error(fmt::format("run: --method {} is given twice", spec));
  }
  for (const auto& [what, path] : {std::pair("json file", a.json), {"report", a.report}}) {
    if (path.empty()) continue;
    check_writable(what, path);
    for (const std::string& input : {a.model, a.text})
      if (same_file(path, input))
        throw Error(fmt::format("run: {} '{}' would replace an input", what, path));
  }
  if (!a.json.empty() && a.json == a.report)
    throw Error(fmt::format("run: --json and --report both name '{}'", a.json));
}

std::vector<int32_t> fit_tokens(const RunArgs& a, const Model& model, const std::string& text,
                                RunInfo& info) {
  info.train_ctx = model.train_ctx();
  info.ctx = a.ctx > 0 ? a.ctx : info.train_ctx;
  info.over_ctx = info.ctx > info.train_ctx;
  if (info.over_ctx && !a.force)
    throw Error(
        fmt::format("run: --ctx {}; this model was trained for up to {} (--force runs it anyway)",
                    info.ctx, info.train_ctx));
  std::vector<int32_t> tokens = model.tokenize(text);
  info.text_tokens = int64_t(tokens.size());
  tokens.resize(size_t(std::min(info.ctx, info.text_tokens)));
  info.tokens = int64_t(tokens.size());
  if (info.tokens < 2 * a.ubatch)
    throw Error(
        fmt::format("run: {} tokens (text has {}, --ctx allows {}); at least two micro-batches of "
                    "{} are needed",
                    info.tokens, info.text_tokens, info.ctx, a.ubatch));
  return tokens;
}

// One whole run: rows, passes, outputs.
class Run {
 public:
  Run(const RunArgs& args, ggml::Control& control, const Model& model, const std::string& text);
  void measure();        // fills rows(); throws Interrupted
  void take_pictures();  // after measure()
  std::string table() const { return cli::table(info_, rows_); }
  void write() const;
  void clear_bar() { progress_->clear(); }

 private:
  using Take = std::function<void(const ggml::Node&)>;
  Timed timed_pass(const std::string& name, ggml::Mode mode, const std::string& spec,
                   bool first_round, std::optional<Scorer::Role> role, const Take& draw = {});
  void llama_row(Row& row, bool first_round);
  void regard_row(Row& row, bool first_round);
  void choose_picture_layers(const std::set<int>& candidates);
  void picture_pass(const std::string& name, ggml::Mode mode, const std::string& spec, Take take);
  Pictures new_pictures() const;
  Pass base_pass() const;

  const RunArgs& args_;
  ggml::Control& control_;
  const Model& model_;
  RunInfo info_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::unique_ptr<Scorer> scorer_;
  std::unique_ptr<Progress> progress_;
  Watch watch_;
  std::vector<Row> rows_;
  PictureSet pictures_;
};

Run::Run(const RunArgs& args, ggml::Control& control, const Model& model, const std::string& text)
    : args_(args), control_(control), model_(model) {
  tokens_ = fit_tokens(args, model, text, info_);
  positions_ = scored_positions(info_.tokens, args.ubatch, args.score);
  std::vector<int32_t> next;
  for (const int64_t at : positions_) next.push_back(tokens_[size_t(at + 1)]);
  scorer_ = std::make_unique<Scorer>(std::move(next), model.vocab());

  info_.model = args.model;
  info_.model_desc = model.description();
  info_.text = args.text;
  info_.machine = machine();
  info_.kv = args.kv;
  info_.numeric = args.numeric.empty() ? "default" : args.numeric;
  info_.version = version();
  info_.date = fmt::format("{:%Y-%m-%d}", fmt::localtime(std::time(nullptr)));
  info_.ubatch = args.ubatch;
  info_.scored = scorer_->positions();
  info_.kl_scored = scorer_->compared();
  info_.layers = model.layers();
  info_.heads = model.heads();
  info_.kv_heads = model.kv_heads();
  info_.threads = args.threads;
  info_.repeat = args.repeat;

  for (const char* name : {"llama.cpp", "exact"}) rows_.emplace_back().name = name;
  for (const std::string& spec : args.methods) {
    rows_.emplace_back().name = spec;
    rows_.back().method = spec;
  }
  const int64_t methods = int64_t(args.methods.size());
  const int64_t timed = args.repeat * (3 + methods);
  progress_ = std::make_unique<Progress>(timed + (args.report.empty() ? 0 : 1), info_.tokens);
}

Pass Run::base_pass() const {
  Pass p;
  p.ubatch = args_.ubatch;
  p.threads = args_.threads;
  p.kv = args_.kv;
  p.tokens = &tokens_;
  p.positions = &positions_;
  p.progress = [this](int64_t done) { progress_->update(done); };
  return p;
}

Timed Run::timed_pass(const std::string& name, ggml::Mode mode, const std::string& spec,
                      bool first_round, std::optional<Scorer::Role> role, const Take& draw) {
  progress_->begin(name);
  TimedPass p{mode, spec, first_round, draw, base_pass()};
  if (role) {
    scorer_->begin(*role);
    p.pass.scored = [this](int64_t i, const float* logits) { scorer_->add(i, logits); };
  }
  Timed t = cli::timed_pass(model_, control_, p);
  watch_ = t.watch;
  progress_->end();
  return t;
}

// llama.cpp alone for the whole, then with its kernel called by the plug-in for the attention's
// share.
void Run::llama_row(Row& row, bool first_round) {
  const auto role = first_round ? std::optional(Scorer::Role::first) : std::nullopt;
  const Timed alone = timed_pass(row.name, ggml::Mode::off, "", first_round, role);
  if (first_round) {
    row.loss = scorer_->result().loss;
    row.scored = true;
  }
  timed_pass(row.name + " (attention)", ggml::Mode::ggml, "", first_round, std::nullopt);
  row.prefill_s.push_back(alone.seconds);
  row.attention_s.push_back(watch_.attention_seconds());
  row.plan_s.push_back(0);
  row.peak_mib = std::max(row.peak_mib, alone.peak_mib);
  row.calls = watch_.calls();
}

void Run::regard_row(Row& row, bool first_round) {
  const bool exact = row.method.empty();
  std::optional<Scorer::Role> role;
  if (first_round) role = exact ? Scorer::Role::exact : Scorer::Role::other;
  std::optional<Pictures> plans;
  if (first_round && !exact && !pictures_.layers.empty()) plans.emplace(new_pictures());
  const Take draw = [&](const ggml::Node& n) {
    if (plans) plans->add_method(n);
  };
  const Timed t = timed_pass(row.name, exact ? ggml::Mode::exact : ggml::Mode::method, row.method,
                             first_round, role, draw);
  if (plans) pictures_.methods.emplace_back(row.name, plans->finish());
  row.prefill_s.push_back(t.seconds);
  row.attention_s.push_back(watch_.attention_seconds());
  row.plan_s.push_back(watch_.plan_seconds());
  row.peak_mib = std::max(row.peak_mib, t.peak_mib);
  row.calls = watch_.calls();
  row.exact_calls = watch_.exact_calls();
  if (!first_round) return;
  const Scorer::Result s = scorer_->result();
  row.loss = s.loss;
  row.kl = s.kl;
  row.top1 = s.top1;
  row.scored = row.compared = true;
  row.pairs = watch_.pairs();
  row.loss_rise = row.loss - rows_[1].loss;
  if (exact) {
    choose_picture_layers(watch_.global_layers());
    Row& llama = rows_[0];
    llama.kl = scorer_->first_against_exact().kl;
    llama.top1 = scorer_->first_against_exact().top1;
    llama.loss_rise = llama.loss - row.loss;
    llama.compared = true;
    llama.pairs = row.pairs;  // the pairs that the model's own masks allow
  }
}

void Run::measure() {
  for (int round = 0; round < args_.repeat; ++round) {
    llama_row(rows_[0], round == 0);
    for (size_t i = 1; i < rows_.size(); ++i) regard_row(rows_[i], round == 0);
  }
}

void Run::picture_pass(const std::string& name, ggml::Mode mode, const std::string& spec,
                       Take take) {
  progress_->begin("pictures: " + name);
  control_.configure(mode, spec, args_.threads);
  control_.observe(std::move(take));
  Pass p = base_pass();
  const std::vector<int64_t> nowhere;
  p.positions = &nowhere;
  p.warm_up = false;
  run_pass(model_, p);
  control_.observe({});
  progress_->end();
}

void Run::choose_picture_layers(const std::set<int>& candidates) {
  if (args_.report.empty()) return;
  const int64_t cell = Pictures::cell_for(info_.tokens);
  const int64_t affordable = affordable_layers((info_.tokens + cell - 1) / cell, info_.heads,
                                               int64_t(args_.methods.size()));
  pictures_.layers = spread(candidates, std::min(args_.picture_layers, affordable));
}

Pictures Run::new_pictures() const {
  return Pictures(info_.tokens, args_.ubatch, pictures_.layers, info_.heads, args_.threads);
}

// The methods' plans were drawn as they ran; exact attention's maps cost a pass of their own.
void Run::take_pictures() {
  if (pictures_.layers.empty()) return;
  Pictures maps = new_pictures();
  picture_pass("exact", ggml::Mode::exact, "", [&](const ggml::Node& n) { maps.add_exact(n); });
  pictures_.cell = maps.cell();
  pictures_.grid = maps.grid();
  pictures_.exact = maps.finish();
}

void Run::write() const {
  if (!args_.json.empty())
    write_file("json file", args_.json, dump(results_json(info_, rows_), 2) + "\n");
  if (!args_.report.empty())
    write_file("report", args_.report, report_page(info_, rows_, pictures_));
}

// Exit code: 0, or 130 after Ctrl-C.
int run_command(const RunArgs& args) {
  check_args(args);
  const std::string text = read_text(args.text);
  check_gguf(args.model);
  const InterruptGuard guard;
  std::unique_ptr<Run> run;
  bool printed = false;
  try {
    ggml::Control& control = load_plugin(args.plugin);
    if (!args.numeric.empty()) control.set_numeric(args.numeric);  // else REGARD_NUMERIC
    const Model model(args.model, args.verbose);
    run = std::make_unique<Run>(args, control, model, text);
    run->measure();
    run->clear_bar();
    std::fputs(run->table().c_str(), stdout);
    std::fflush(stdout);
    printed = true;
    run->take_pictures();
    run->clear_bar();
    run->write();
  } catch (const Interrupted&) {
    if (run) run->clear_bar();
    if (run && !printed) {
      std::fputs(run->table().c_str(), stdout);
      std::fflush(stdout);
    }
    std::fputs("regard: run: interrupted; no file was written\n", stderr);
    return 130;
  }
  return 0;
}

}  // namespace

void add_run(CLI::App& app) {
  auto a = std::make_shared<RunArgs>();
  a->threads = hardware_threads();
  CLI::App* run = app.add_subcommand(
      "run", "Read a document with a GGUF model: llama.cpp's attention, Regard's, and each method");
  run->add_option("model", a->model, "GGUF file of a decoder-only model")->required();
  run->add_option("text", a->text, "UTF-8 text, at least two micro-batches long")->required();
  run->add_option("--method", a->methods,
                  "method to compare, such as xattention:threshold=0.9,block=128; "
                  "may be repeated")
      ->type_name("SPEC")
      ->allow_extra_args(false);
  run->add_option_function<std::vector<std::string>>(
         "--profile",
         [a](const std::vector<std::string>& files) {
           for (const std::string& f : files) a->methods.push_back("@" + f);
         },
         "profile of regard search: each head its own method; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  run->add_option("--ctx", a->ctx, "tokens read at most (default: the model's training context)");
  run->add_flag("--force", a->force, "allow --ctx beyond the model's training context");
  run->add_option("--threads", a->threads, "threads for everything")->capture_default_str();
  run->add_option("--ubatch", a->ubatch, "queries a micro-batch")->capture_default_str();
  run->add_option("--score", a->score, "positions whose next token is scored")
      ->capture_default_str();
  run->add_option("--repeat", a->repeat, "times the rows alternate")->capture_default_str();
  run->add_option("--kv", a->kv, "type of the KV cache")->capture_default_str();
  run->add_option(
         "--numeric", a->numeric,
         "arithmetic of attention: f32, bf16, int8 or int16 (default: by the cache's type, the "
         "fastest that loses no more than llama.cpp's own)")
      ->check(CLI::IsMember(numerics()));
  run->add_option("--report", a->report, "write an HTML report")->type_name("FILE");
  run->add_option("--json", a->json, "write the table as JSON")->type_name("FILE");
  run->add_option("--picture-layers", a->picture_layers, "layers pictured in the report")
      ->capture_default_str();
  run->add_option("--plugin", a->plugin,
                  "plug-in to load (default: libggml-regard.so beside this program)")
      ->type_name("FILE");
  run->add_flag("--verbose", a->verbose, "show llama.cpp's log");
  run->footer(
      "Example:\n  regard run model.gguf book.txt --method a_shape --method "
      "xattention:threshold=0.9 --report out.html");
  run->callback([a] {
    if (const int code = run_command(*a); code != 0) throw CLI::RuntimeError(code);
  });
}

}  // namespace regard::cli
