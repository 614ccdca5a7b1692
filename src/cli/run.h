// regard run: its options and results. Layer: cli.
//
// The pieces, one file each: run_files (checks, writing), run_model (libllama and the plug-in),
// run_score (loss, KL), run_watch (what every attention node did), run_pictures (tile and attention
// maps), run_progress, and the three outputs run_table, run_json, run_report.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace regard::cli {

struct RunArgs {
  std::string model, text;
  std::vector<std::string> methods;  // specs
  int64_t ctx = 0;                   // 0: the model's own
  int64_t ubatch = 512;
  int64_t score = 512;  // scored positions wanted
  int threads = 0;      // 0: all cores
  int repeat = 1;
  std::string kv = "f16";
  std::string numeric;  // empty: the plug-in's choice by the cache's type
  std::string report, json, plugin;
  int64_t picture_layers = 5;
  bool force = false, verbose = false;
};

// Query-key pairs by [layer][head], summed over all micro-batches; rows of layers that hold no
// attention stay empty.
struct PairCounts {
  std::vector<std::vector<double>> kept, causal;
  double tile_pairs = 0;  // pairs in the tiles touched: what a kernel multiplies
  double density() const;
  double tile_density() const;
  double at(int64_t layer, int64_t head) const;  // density; NaN where nothing was counted
};

struct Row {
  std::string name;                                    // "llama.cpp", "exact" or the method's spec
  std::string method;                                  // "" for the first two
  std::vector<double> prefill_s, attention_s, plan_s;  // one entry a repeat
  double peak_mib = 0;
  PairCounts pairs;
  double loss = 0, loss_rise = 0, kl = 0, top1 = 0;
  bool scored = false, compared = false;  // compared: rise, kl and top1 against exact are known
  int64_t calls = 0;                      // attention nodes a pass
  std::map<std::string, int64_t> exact_calls;
  bool done() const { return !prefill_s.empty() && !attention_s.empty(); }
  double prefill() const;  // medians over the repeats
  double attention() const;
  double plan() const;
};

// What was run, for every output.
struct RunInfo {
  std::string model, model_desc, text, machine, kv, numeric, version, date;
  int64_t tokens = 0, text_tokens = 0, ctx = 0, train_ctx = 0, ubatch = 0, scored = 0,
          kl_scored = 0;
  int64_t layers = 0, heads = 0, kv_heads = 0;
  int threads = 0, repeat = 1;
  bool over_ctx = false;  // --force: the context goes beyond what the model was trained for
};

// Whole prefill against prefill without any attention time, from llama.cpp's own row.
double best_possible(const Row& llama);
std::string how_measured(const RunInfo& info);  // alternation, warm-up, memory: one paragraph

double median(std::vector<double> v);

}  // namespace regard::cli
