// regard frontier: every method at every setting of its sweep, on one model. Layer: cli.
//
// The pieces: frontier_settings (which rows), journal (rows.jsonl, whole lines only), recall (does
// the model still find what lies far back), frontier_planted (inputs with a known best mask),
// frontier_model (a row of the real model), frontier_report (the page).
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace regard::cli {

using Json = nlohmann::ordered_json;

struct FrontierArgs {
  std::string model, text, out, plugin;
  std::string methods = "all", lengths = "2k,4k,8k";
  std::vector<std::string> profiles;
  double budget = 0;  // minutes; 0: no limit
  int64_t ubatch = 512, score = 512, planted_tokens = 4096;
  int threads = 0;
  uint64_t seed = 0;
  std::string kv = "f16", numeric;  // numeric empty: the plug-in's choice by the cache's type
  bool force = false, verbose = false;
};

// One row to be: a method at a setting, or a profile.
struct Setting {
  std::string spec;    // what `regard run --method` takes; "@FILE" is a profile
  std::string method;  // the record's name; "profile"
  std::string family;
  std::string title;
  std::string not_on_model;  // why it has no row on the model; empty: it has
  std::string not_at_all;    // why it cannot be planned at all: its weights were not given
};

// "a,b:x=1,y=2,c" or "all": every method that chooses pairs (families pattern, dynamic, clustered,
// hybrid), swept; a setting that names the swept parameter stands alone. Throws Error.
std::vector<Setting> frontier_settings(const std::string& methods,
                                       const std::vector<std::string>& profiles);
// "2k,4096,8k" in tokens, ascending. Throws Error.
std::vector<int64_t> frontier_lengths(const std::string& lengths);

}  // namespace regard::cli
