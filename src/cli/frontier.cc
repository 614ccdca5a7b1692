#include "cli/frontier.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/frontier_model.h"
#include "cli/frontier_planted.h"
#include "cli/frontier_report.h"
#include "cli/journal.h"
#include "cli/run_files.h"
#include "cli/run_interrupt.h"
#include "cli/run_progress.h"
#include "cli/verbs.h"
#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// FNV-1a, 64 bits: is it the same text as before?
std::string content_hash(const std::string& s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : s) h = (h ^ uint8_t(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", h);
}

std::string minutes(double seconds) {
  const int64_t s = int64_t(std::lround(std::max(0.0, seconds)));
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

void check_args(const FrontierArgs& a) {
  const auto in_range = [](const char* name, double value, double min, double max) {
    if (!(value >= min && value <= max))
      throw Error(fmt::format("frontier: {} {}; accepted: {}..{}", name, value, min, max));
  };
  in_range("--threads", a.threads, 1, 4 * hardware_threads());
  in_range("--ubatch", double(a.ubatch), 16, 65536);
  in_range("--score", double(a.score), 1, 1 << 20);
  in_range("--budget", a.budget, 0, 1e6);
  in_range("--planted-tokens", double(a.planted_tokens), 64, 16384);
}

// DIR and what lies in it: rows.jsonl, whose first line says what the rows are of, and the page.
class Store {
 public:
  Store(const FrontierArgs& args, const Json& header)
      : page_((fs::path(args.out) / "frontier.html").string()), journal_(open(args)) {
    if (!journal_.notice().empty()) std::fprintf(stderr, "regard: %s\n", journal_.notice().c_str());
    if (journal_.lines().empty()) {
      journal_.append(header);
      return;
    }
    const Json& old = journal_.lines()[0];
    if (old.value("kind", "") != "frontier")
      throw Error(fmt::format("frontier: '{}' holds no frontier; give another --out", args.out));
    for (const char* key : {"model_bytes", "text_hash", "ubatch", "threads", "kv", "numeric",
                            "score", "seed", "planted_tokens", "machine"})
      if (old.value(key, Json()) != header.at(key))
        throw Error(fmt::format(
            "frontier: '{}' holds rows of another run: {} was {}, now {}; give another --out",
            args.out, key, old.value(key, Json()).dump(), header.at(key).dump()));
  }

  const Json* find(const std::string& kind, const std::string& name, int64_t length = 0) const {
    for (const Json& j : journal_.lines())
      if (j.value("kind", "") == kind && j.value("name", "") == name &&
          j.value("length", int64_t(0)) == length)
        return &j;
    return nullptr;
  }
  void append(const Json& line) { journal_.append(line); }
  const std::vector<Json>& lines() const { return journal_.lines(); }
  void write_page(const std::vector<Setting>& settings) const {
    write_file("page", page_, frontier_page(journal_.lines(), settings));
  }
  const std::string& page() const { return page_; }

 private:
  static std::string open(const FrontierArgs& args) {
    std::error_code why;
    fs::create_directories(args.out, why);
    if (why)
      throw Error(fmt::format("frontier: --out '{}' cannot be made: {}", args.out, why.message()));
    check_writable("page", (fs::path(args.out) / "frontier.html").string());
    return (fs::path(args.out) / "rows.jsonl").string();
  }

  std::string page_;
  Journal journal_;
};

// The time: what was spent, what is left to do, and when to stop.
class Clocks {
 public:
  explicit Clocks(double budget_minutes) : budget_(60 * budget_minutes) {}
  double spent() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool over() const { return budget_ > 0 && spent() >= budget_; }
  // A row of `kind` (0: planted, else the length) took so long.
  void took(int64_t kind, double seconds) { rows_[kind].push_back(seconds); }
  // Seconds for one row: the mean so far, or scaled from another length.
  double expect(int64_t kind) const {
    if (const auto it = rows_.find(kind); it != rows_.end()) {
      double sum = 0;
      for (const double s : it->second) sum += s;
      return sum / double(it->second.size());
    }
    if (kind == 0) return 1;
    if (rows_.empty() || rows_.rbegin()->first == 0) return 8e-3 * double(kind);
    // Everything else grows with the length, attention with its square.
    return expect(rows_.rbegin()->first) *
           std::pow(double(kind) / double(rows_.rbegin()->first), 1.3);
  }

 private:
  const Clock::time_point start_ = Clock::now();
  double budget_;
  std::map<int64_t, std::vector<double>> rows_;
};

class Frontier {
 public:
  Frontier(const FrontierArgs& args, const std::string& text);
  // Returns false where the budget ended before the rows.
  bool run();
  Store& store() { return *store_; }
  const std::vector<Setting>& settings() const { return settings_; }
  void clear_bar() {
    if (bar_) bar_->clear();
  }

 private:
  struct Todo {
    int64_t length = 0;                // 0: planted
    const Setting* setting = nullptr;  // null: the references of that length, or the best masks
  };
  void list_todo();
  void planted_row(const Todo& t);
  void references(int64_t length);
  void model_row(const Todo& t);
  void load_model();
  void say(const Todo& t, const Json& row);
  double left() const;  // seconds
  int64_t rows_left() const { return int64_t(todo_.size()) - done_; }

  const FrontierArgs& args_;
  const std::string& text_;
  std::vector<Setting> settings_;
  std::vector<int64_t> lengths_;
  std::unique_ptr<Store> store_;
  Clocks clocks_;
  std::vector<Todo> todo_;
  int64_t done_ = 0;
  std::unique_ptr<PlantedAxis> planted_;
  ggml::Control* control_ = nullptr;
  std::unique_ptr<Model> model_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<LengthRun> at_length_;
  int64_t length_ = 0;
  bool compared_ = false;  // at_length_ has exact's output to compare with
  std::unique_ptr<Progress> bar_;
};

Frontier::Frontier(const FrontierArgs& args, const std::string& text)
    : args_(args),
      text_(text),
      settings_(frontier_settings(args.methods, args.profiles)),
      lengths_(frontier_lengths(args.lengths)),
      clocks_(args.budget) {
  for (const int64_t n : lengths_)
    if (n < 2 * args.ubatch)
      throw Error(
          fmt::format("frontier: --lengths {}: at least two micro-batches of {} tokens are needed",
                      n, args.ubatch));
  control_ = &load_plugin(args.plugin);
  if (!args.numeric.empty()) control_->set_numeric(args.numeric);
  for (const std::string& file : args.profiles)
    control_->configure(ggml::Mode::method, "@" + file, args.threads);  // refuses a bad one now
  Json header = {{"kind", "frontier"}, {"format", 1}};
  header["model"] = args.model;
  header["model_bytes"] = fs::file_size(args.model);
  header["text"] = args.text;
  header["text_hash"] = content_hash(text);
  header["ubatch"] = args.ubatch;
  header["threads"] = args.threads;
  header["kv"] = args.kv;
  header["numeric"] = args.numeric.empty() ? "default" : args.numeric;
  header["score"] = args.score;
  header["seed"] = args.seed;
  header["planted_tokens"] = args.planted_tokens;
  header["machine"] = machine();
  header["regard"] = version();
  header["date"] = fmt::format("{:%Y-%m-%d}", fmt::localtime(std::time(nullptr)));
  store_ = std::make_unique<Store>(args, header);
  list_todo();
}

// Cheapest first: planted inputs, then the lengths upwards; within a length as fast as the planted
// inputs ran, which is known only once they did, so list_todo is called again after them.
void Frontier::list_todo() {
  todo_.clear();
  done_ = 0;
  if (!store_->find("best", "")) todo_.push_back({0, nullptr});
  for (const Setting& s : settings_)
    if (s.not_at_all.empty() && s.method != "profile" && !store_->find("planted", s.spec))
      todo_.push_back({0, &s});
  const auto planted_seconds = [&](const Setting* s) {
    const Json* row = store_->find("planted", s->spec);
    if (!row) return 1e9;
    double sum = 0;
    for (const Json& p : row->at("points"))
      if (p.contains("plan_s")) sum += p["plan_s"].get<double>() + p["attend_s"].get<double>();
    return sum;
  };
  for (const int64_t n : lengths_) {
    std::vector<const Setting*> rows;
    for (const Setting& s : settings_)
      if (s.not_on_model.empty() && !store_->find("row", s.spec, n)) rows.push_back(&s);
    std::stable_sort(rows.begin(), rows.end(), [&](const Setting* a, const Setting* b) {
      return planted_seconds(a) < planted_seconds(b);
    });
    if (!store_->find("row", "exact", n) || !store_->find("row", "llama.cpp", n))
      todo_.push_back({n, nullptr});
    for (const Setting* s : rows) todo_.push_back({n, s});
  }
}

double Frontier::left() const {
  double sum = 0;
  for (size_t i = size_t(done_); i < todo_.size(); ++i)
    sum += clocks_.expect(todo_[i].length) * (todo_[i].length && !todo_[i].setting ? 2.5 : 1);
  return sum;
}

void Frontier::load_model() {
  if (model_) return;
  model_ = std::make_unique<Model>(args_.model, args_.verbose);
  tokens_ = model_->tokenize(text_);
  const int64_t longest = lengths_.back(), most = model_->train_ctx();
  if (longest > int64_t(tokens_.size()))
    throw Error(
        fmt::format("frontier: --lengths {}; the text has {} tokens", longest, tokens_.size()));
  if (longest > most && !args_.force)
    throw Error(fmt::format(
        "frontier: --lengths {}; this model was trained for up to {} (--force runs it anyway)",
        longest, most));
  if (!store_->find("model", ""))
    store_->append({{"kind", "model"},
                    {"description", model_->description()},
                    {"layers", model_->layers()},
                    {"heads", model_->heads()},
                    {"kv_heads", model_->kv_heads()},
                    {"train_ctx", most},
                    {"text_tokens", tokens_.size()}});
}

void Frontier::planted_row(const Todo& t) {
  if (!planted_)
    planted_ = std::make_unique<PlantedAxis>(args_.planted_tokens, args_.threads, args_.seed);
  store_->append(t.setting ? planted_->row(*t.setting) : planted_->best());
}

// llama.cpp's row and exact's; where both are there from an earlier run, exact's output only.
void Frontier::references(int64_t length) {
  load_model();
  if (length_ != length) {
    bar_ = std::make_unique<Progress>(1, length);
    LengthRun::Watcher w{[this](const std::string& name) { bar_->begin(name); },
                         [this](int64_t done) { bar_->update(done); }, [] {}};
    at_length_ = std::make_unique<LengthRun>(args_, *model_, *control_, tokens_, length, w);
    length_ = length;
    compared_ = false;
  }
  if (!store_->find("row", "llama.cpp", length)) {
    store_->append(at_length_->llama_row());
  }
  if (compared_) return;
  if (store_->find("row", "exact", length))
    at_length_->reference_only();
  else
    store_->append(at_length_->exact_row());
  compared_ = true;
}

void Frontier::model_row(const Todo& t) {
  references(t.length);
  if (!t.setting) return;
  store_->append(at_length_->row(*t.setting, *store_->find("row", "llama.cpp", t.length),
                                 *store_->find("row", "exact", t.length)));
}

void Frontier::say(const Todo& t, const Json& row) {
  clear_bar();
  std::string line = fmt::format("{:>3} left, {:>7}  ", rows_left(), minutes(left()));
  if (t.length == 0) {
    line += fmt::format("planted  {}", t.setting ? t.setting->spec : "best masks");
  } else if (!t.setting) {
    line += fmt::format("{:>7}  llama.cpp and exact", t.length);
  } else {
    line += fmt::format(
        "{:>7}  {}: density {:.3f}, loss {:+.4f}, attention {:.2f} s ({:.2f}x exact)", t.length,
        t.setting->spec, row["density"].get<double>(), row["loss_rise"].get<double>(),
        row["attention_s"].get<double>(), row["attention_speedup_exact"].get<double>());
  }
  std::puts(line.c_str());
  std::fflush(stdout);
}

bool Frontier::run() {
  if (!todo_.empty()) fmt::print("{} rows to do, about {}\n", todo_.size(), minutes(left()));
  bool planted_before = !todo_.empty() && todo_[0].length == 0;
  while (done_ < int64_t(todo_.size())) {
    check_interrupt();
    if (clocks_.over()) return false;
    if (planted_before && todo_[size_t(done_)].length > 0) {
      planted_before = false;
      planted_.reset();
      list_todo();  // now in the order of what the planted inputs took
      continue;
    }
    const Todo t = todo_[size_t(done_)];
    if (bar_) bar_->set_left(left());
    const double begin = clocks_.spent();
    t.length == 0 ? planted_row(t) : model_row(t);
    if (t.setting || t.length == 0) clocks_.took(t.length, clocks_.spent() - begin);
    ++done_;
    say(t, store_->lines().back());
  }
  return true;
}

int run_frontier(const FrontierArgs& args) {
  check_args(args);
  const std::string text = read_text(args.text);
  check_gguf(args.model);
  const InterruptGuard guard;
  std::unique_ptr<Frontier> f;
  const auto finish = [&](const char* how) {
    f->clear_bar();
    f->store().write_page(f->settings());
    fmt::print("{}{}\n", how, f->store().page());
  };
  try {
    f = std::make_unique<Frontier>(args, text);
    const bool all = f->run();
    finish(all ? "wrote " : "the budget is spent; the same command goes on. Wrote ");
  } catch (const Interrupted&) {
    if (!f) return 130;
    finish("interrupted; the same command goes on. Wrote ");
    return 130;
  }
  return 0;
}

}  // namespace

void add_frontier(CLI::App& app) {
  auto a = std::make_shared<FrontierArgs>();
  a->threads = hardware_threads();
  CLI::App* verb = app.add_subcommand(
      "frontier", "Compare every method at several settings on a GGUF model; a page of what pays");
  verb->add_option("model", a->model, "GGUF file of a decoder-only model")->required();
  verb->add_option("text", a->text, "UTF-8 text, longer than the longest length")->required();
  verb->add_option("--out", a->out,
                   "folder for rows.jsonl and frontier.html; goes on where a run "
                   "before it stopped")
      ->type_name("DIR")
      ->required();
  verb->add_option("--methods", a->methods,
                   "all, or methods such as a_shape,xattention:block=64 ; each is swept over its "
                   "main parameter unless that is given")
      ->capture_default_str();
  verb->add_option("--lengths", a->lengths, "tokens read, such as 2k,4k,8k")->capture_default_str();
  verb->add_option("--profile", a->profiles, "profile of regard search, a row like the others")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_option("--budget", a->budget, "minutes after which no row is begun (0: no limit)")
      ->capture_default_str();
  verb->add_option("--threads", a->threads, "threads for everything")->capture_default_str();
  verb->add_option("--ubatch", a->ubatch, "queries a micro-batch")->capture_default_str();
  verb->add_option("--score", a->score, "positions whose next token is scored")
      ->capture_default_str();
  verb->add_option("--kv", a->kv, "type of the KV cache")->capture_default_str();
  verb->add_option("--numeric", a->numeric,
                   "arithmetic (default: the fastest that loses no more than ggml's own)")
      ->check(CLI::IsMember(numerics()));
  verb->add_option("--seed", a->seed, "of needles and planted inputs")->capture_default_str();
  verb->add_option("--planted-tokens", a->planted_tokens, "length of the planted inputs")
      ->capture_default_str();
  verb->add_flag("--force", a->force, "allow lengths beyond the model's training context");
  verb->add_option("--plugin", a->plugin,
                   "plug-in to load (default: libggml-regard.so beside this program)")
      ->type_name("FILE");
  verb->add_flag("--verbose", a->verbose, "show llama.cpp's log");
  verb->footer(
      "Example:\n  regard frontier model.gguf book.txt --lengths 2k,4k --budget 30 --out frontier");
  verb->callback([a] {
    if (const int code = run_frontier(*a); code != 0) throw CLI::RuntimeError(code);
  });
}

}  // namespace regard::cli
