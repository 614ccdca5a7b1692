// regard capture: q, k, v of a model's layers, written to safetensors files that plan, attend and
// explain read.
#include "cli/capture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/run_files.h"
#include "cli/run_interrupt.h"
#include "cli/run_json.h"
#include "cli/run_progress.h"
#include "cli/run_timed.h"
#include "cli/verbs.h"
#include "io/io.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string model, text, layers, heads = "all", out, plugin, kv = "f16";
  int64_t ctx = 2048, ubatch = 512, memory = 1024;
  int threads = 0;
  bool verbose = false;
};

// "0,4,7-9" or "all", below `n`.
std::vector<int64_t> parse_list(const char* name, const std::string& text, int64_t n) {
  const auto refuse = [&] {
    throw Error(
        fmt::format("capture: {} '{}'; accepted: all, or numbers such as 0,4,7-9 from 0 to {}",
                    name, text, n - 1));
  };
  std::set<int64_t> out;
  for (int64_t i = 0; text == "all" && i < n; ++i) out.insert(i);
  for (size_t begin = 0; text != "all" && begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const char *p = text.data() + begin, *stop = text.data() + end;
    int64_t a = -1, b = -1;
    auto [at, error] = std::from_chars(p, stop, a);
    if (error != std::errc()) refuse();
    b = a;
    if (at != stop && *at == '-') {
      const auto [rest, wrong] = std::from_chars(at + 1, stop, b);
      if (wrong != std::errc()) refuse();
      at = rest;
    }
    if (at != stop || a < 0 || b < a || b >= n) refuse();
    for (; a <= b; ++a) out.insert(a);
    begin = end + 1;
  }
  return {out.begin(), out.end()};
}

class Capture {
 public:
  Capture(const Arguments& a, const std::string& text);
  void run();

 private:
  std::string file(int64_t layer) const {
    return (fs::path(a_.out) / fmt::format("layer-{:03}.safetensors", layer)).string();
  }
  std::string identity() const;  // in each file: is it of this run?
  bool there(int64_t layer) const;
  int64_t bytes_a_layer() const;
  void announce(const std::vector<int64_t>& todo) const;
  void group(const std::vector<int64_t>& layers);
  void write_layer(int64_t layer, const Collector::Layer& l) const;
  void write_manifest() const;

  const Arguments& a_;
  ggml::Control& control_;
  Model model_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> layers_, heads_;
  bool some_heads_;
  std::unique_ptr<Progress> bar_;
};

Capture::Capture(const Arguments& a, const std::string& text)
    : a_(a), control_(load_plugin(a.plugin)), model_(a.model, a.verbose) {
  layers_ = parse_list("--layers", a.layers, model_.layers());
  some_heads_ = a.heads != "all";
  heads_ = parse_list("--heads", a.heads, model_.heads());
  tokens_ = model_.tokenize(text);
  if (a.ctx > model_.train_ctx())
    throw Error(fmt::format("capture: --ctx {}; this model was trained for up to {}", a.ctx,
                            model_.train_ctx()));
  tokens_.resize(std::min(tokens_.size(), size_t(a.ctx)));
  if (tokens_.size() < 2)
    throw Error(
        fmt::format("capture: the text has {} tokens; at least 2 are needed", tokens_.size()));
  std::error_code why;
  fs::create_directories(a.out, why);
  if (why) throw Error(fmt::format("capture: --out '{}' cannot be made: {}", a.out, why.message()));
  check_writable("manifest", (fs::path(a.out) / "manifest.json").string());
}

std::string Capture::identity() const {
  return fmt::format("{} tokens of {} by {} ({} bytes), heads {}, kv {}, ubatch {}", tokens_.size(),
                     a_.text, a_.model, fs::file_size(a_.model), a_.heads, a_.kv, a_.ubatch);
}

bool Capture::there(int64_t layer) const {
  if (!fs::exists(file(layer))) return false;
  const io::SafeTensors old = io::load_safetensors(file(layer), {"none of them"});
  const auto it = old.metadata.find("capture");
  if (it == old.metadata.end() || it->second != identity())
    throw Error(fmt::format("capture: '{}' is of another run ({}); give another --out", file(layer),
                            it == old.metadata.end() ? "not of capture" : it->second));
  return true;
}

// An upper bound: head sizes up to the model's embedding over its heads, all in f32.
int64_t Capture::bytes_a_layer() const {
  const int64_t q = int64_t(heads_.size());
  const int64_t kv = some_heads_ ? q : model_.kv_heads();
  return int64_t(tokens_.size()) * model_.head_size() * 4 * (2 * q + 3 * kv);
}

void Capture::announce(const std::vector<int64_t>& todo) const {
  const double mib = double(bytes_a_layer()) / (1 << 20);
  fmt::print(
      "{} of {} layers to write, {} tokens, {} query heads: at most {:.1f} MiB a layer, {:.1f} "
      "MiB in all\n",
      todo.size(), layers_.size(), tokens_.size(), heads_.size(), mib, mib * double(todo.size()));
  std::fflush(stdout);
  struct statvfs disk;
  if (statvfs(a_.out.c_str(), &disk) != 0) return;
  const double free = double(disk.f_bavail) * double(disk.f_frsize);
  if (double(bytes_a_layer()) * double(todo.size()) > free)
    throw Error(fmt::format("capture: '{}' has {:.1f} MiB free, up to {:.1f} are needed", a_.out,
                            free / (1 << 20), mib * double(todo.size())));
}

void Capture::write_layer(int64_t layer, const Collector::Layer& l) const {
  std::vector<io::Named> tensors = {{"q", l.q.view}, {"k", l.k.view}, {"v", l.v.view}};
  const int64_t n = int64_t(tokens_.size());
  if (l.q_seen == n) tensors.push_back({"q_before", l.q_before.view});
  if (l.k_seen == n) tensors.push_back({"k_before", l.k_before.view});
  io::save_safetensors(file(layer), tensors,
                       {{"capture", identity()},
                        {"layer", std::to_string(layer)},
                        {"heads", fmt::format("{}", fmt::join(heads_, ","))},
                        {"scale", fmt::format("{}", l.scale)}});
}

// One pass for as many layers as the memory holds.
void Capture::group(const std::vector<int64_t>& layers) {
  Collector collector(model_, layers, some_heads_ ? heads_ : std::vector<int64_t>{},
                      int64_t(tokens_.size()));
  const std::vector<int64_t> nowhere;
  TimedPass p;
  p.draw = [&](const ggml::Node& n) { collector.add(n); };
  p.pass.ubatch = a_.ubatch;
  p.pass.threads = a_.threads;
  p.pass.kv = a_.kv;
  p.pass.tokens = &tokens_;
  p.pass.positions = &nowhere;
  p.pass.warm_up = false;
  p.pass.progress = [&](int64_t done) { bar_->update(done); };
  p.pass.node = [&](const ggml_tensor* t, bool ask) { return collector.on_graph_node(t, ask); };
  bar_->begin(fmt::format("layers {}", fmt::join(layers, ",")));
  timed_pass(model_, control_, p);
  bar_->end();
  bar_->clear();
  for (const auto& [layer, l] : collector.layers()) {
    if (l.tokens < int64_t(tokens_.size()))
      throw Error(fmt::format(
          "capture: layer {}: its attention does not reach the plug-in; it may have none", layer));
    write_layer(layer, l);
    fmt::print("wrote {}{}\n", file(layer),
               l.q_seen == l.tokens && l.k_seen == l.tokens
                   ? ""
                   : " (without q and k before rotation: the graph does not name them)");
    std::fflush(stdout);
  }
}

void Capture::write_manifest() const {
  nlohmann::ordered_json j;
  j["capture"] = identity();
  j["model"] = a_.model;
  j["text"] = a_.text;
  j["tokens"] = tokens_;
  j["layers"] = nlohmann::ordered_json::array();
  for (const int64_t layer : layers_) {
    const io::SafeTensors t = io::load_safetensors(file(layer));
    nlohmann::ordered_json l = {{"layer", layer},
                                {"file", fs::path(file(layer)).filename().string()}};
    for (const auto& [name, tensor] : t.tensors) l["tensors"][name] = tensor.view.shape();
    l["scale"] = t.metadata.at("scale");
    l["heads"] = t.metadata.at("heads");
    j["layers"].push_back(l);
  }
  j["meaning"] = {
      {"q, k, v", "as the attention reads them: after rotation, k and v as the cache stores them"},
      {"q_before, k_before",
       "after projection, bias and norm, before rotation; absent where the "
       "graph does not name them"},
      {"heads", some_heads_ ? "query heads kept; k and v are repeated, one for each"
                            : "all; grouped queries share k and v"}};
  write_file("manifest", (fs::path(a_.out) / "manifest.json").string(), dump(j, 1) + "\n");
}

void Capture::run() {
  std::vector<int64_t> todo;
  for (const int64_t layer : layers_)
    if (!there(layer)) todo.push_back(layer);
  announce(todo);
  const int64_t fit = std::max<int64_t>(1, (a_.memory << 20) / bytes_a_layer());
  const int64_t passes = (int64_t(todo.size()) + fit - 1) / fit;
  bar_ = std::make_unique<Progress>(passes, int64_t(tokens_.size()));
  for (size_t first = 0; first < todo.size(); first += size_t(fit)) {
    const size_t last = std::min(todo.size(), first + size_t(fit));
    group({todo.begin() + int64_t(first), todo.begin() + int64_t(last)});
  }
  write_manifest();
}

void check_args(const Arguments& a) {
  const auto in_range = [](const char* name, int64_t value, int64_t min, int64_t max) {
    if (value < min || value > max)
      throw Error(fmt::format("capture: {} {}; accepted: {}..{}", name, value, min, max));
  };
  in_range("--threads", a.threads, 1, 4 * hardware_threads());
  in_range("--ubatch", a.ubatch, 16, 65536);
  in_range("--ctx", a.ctx, 2, INT32_MAX);
  in_range("--memory", a.memory, 1, 1 << 20);
}

}  // namespace

void add_capture(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  a->threads = hardware_threads();
  CLI::App* verb =
      app.add_subcommand("capture", "Write q, k and v of a model's layers to safetensors files");
  verb->add_option("model", a->model, "GGUF file of a decoder-only model")->required();
  verb->add_option("text", a->text, "UTF-8 text")->required();
  verb->add_option("--layers", a->layers, "layers, such as 0,14,20-22, or all")->required();
  verb->add_option("--heads", a->heads, "query heads, such as 0,4, or all")->capture_default_str();
  verb->add_option("--out", a->out,
                   "folder for layer-NNN.safetensors and manifest.json; layers "
                   "already there are kept")
      ->type_name("DIR")
      ->required();
  verb->add_option("--ctx", a->ctx, "tokens read at most")->capture_default_str();
  verb->add_option("--ubatch", a->ubatch, "queries a micro-batch")->capture_default_str();
  verb->add_option("--kv", a->kv, "type of the KV cache")->capture_default_str();
  verb->add_option("--memory", a->memory,
                   "MiB of tensors held at a time; more layers take more "
                   "passes")
      ->capture_default_str();
  verb->add_option("--threads", a->threads, "threads for everything")->capture_default_str();
  verb->add_option("--plugin", a->plugin,
                   "plug-in to load (default: libggml-regard.so beside this program)")
      ->type_name("FILE");
  verb->add_flag("--verbose", a->verbose, "show llama.cpp's log");
  verb->footer(
      "Example:\n  regard capture model.gguf book.txt --layers 0,14 --out qkv\n  regard plan "
      "xattention --in qkv/layer-014.safetensors");
  verb->callback([a] {
    check_args(*a);
    const std::string text = read_text(a->text);
    check_gguf(a->model);
    const InterruptGuard guard;
    try {
      Capture(*a, text).run();
    } catch (const Interrupted&) {
      std::fputs("regard: capture: interrupted; the same command goes on\n", stderr);
      throw CLI::RuntimeError(130);
    }
  });
}

}  // namespace regard::cli
