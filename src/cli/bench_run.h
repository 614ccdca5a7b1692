// Timing a series: problems that share a base, in rounds, beside the machine's peaks and other
// libraries. Layer: cli.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "cli/bench_lines.h"
#include "cli/bench_peer.h"
#include "cpu/peaks.h"

namespace regard::cli {

struct Measured {
  double value = 0;
  double spread = 0;  // quartile to quartile over the rounds, as a share of the value
};

// Measures, each the median of its rounds' own ratios:
//   peak       GFLOP/s of allowed pairs / f32 FMA peak       read   KV bytes a second / read peak
//   ggml       ggml's time / ours                            rate   pairs a second / the base's
//   plan       time to make the plan / the base's time       scaling   first thread count's / this
//   openvino, openvino_f32, torch, torch_f32   fastest of its precisions (or f32) / ours
//   accuracy   ggml's rms error against fp64 / ours
struct BenchRow {
  std::string group, problem;
  int threads = 1;
  bool plan = false;    // what was timed is making the plan
  std::string refused;  // why it was not timed
  Measured seconds;
  double gflops = 0, kv_gbs = 0;
  double flops_per_byte = 0;               // of q, k, v and out read or written once
  double error = 0, ggml_error = 0;        // rms over the last queries, relative; 0: not known
  std::map<std::string, Measured> other;   // seconds of "ggml", "openvino_bf16", ...
  std::map<std::string, std::string> why;  // "ggml" -> why it was not timed
  std::map<std::string, Measured> measures;
  std::vector<Target> targets;
};

struct Rounds {
  std::vector<int> threads;
  int least = 7;
  double seconds = 1;  // least time a series
  bool ggml = true;
};

// Lines of one file that follow each other and share a base; the base comes first, as a line of its
// own without targets where the file does not list it.
std::vector<std::vector<ProblemLine>> series_of(const ProblemFile& file);
// Rows line by line, thread count by thread count.
std::vector<BenchRow> run_series(const std::string& group, const std::vector<ProblemLine>& series,
                                 const Rounds& rounds, cpu::Peaks& peaks, Peers& peers);

// Empty: not measured. Otherwise whether it holds.
enum class Verdict { unknown, pass, miss };
Verdict judge_target(const BenchRow& row, const Target& t);

}  // namespace regard::cli
