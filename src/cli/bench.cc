// regard bench: times text problems, beside what the machine can do and what ggml does, in one run.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/bench_ggml.h"
#include "cli/bench_problem.h"
#include "cli/verbs.h"
#include "cpu/cpu.h"
#include "cpu/peaks.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

struct Arguments {
  std::vector<std::string> files, problems, numerics;
  std::vector<int> threads = {1, 2};
  int repeats = 7;
  double seconds = 1;
  bool ggml = true;
  std::string json;
};

double now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(t).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

struct Row {
  std::string problem;
  int threads = 1;
  double seconds = 0, gflops = 0, peak_share = 0, gbs = 0, read_share = 0;
  std::optional<double> ggml_seconds;
  double ratio = 0;     // median of the rounds' own ratios, ggml / regard
  std::string no_ggml;  // why ggml was not timed
};

// Rounds of one run each, so that both meet the same machine; the first is warm-up.
Row time_one(const TextProblem& x, int threads, const cpu::Peaks& peaks, const Arguments& a) {
  RunOptions options;
  options.impl = "cpu";
  options.threads = threads;
  Out out;
  out.out = x.out.view;
  out.lse = x.lse.view;
  std::unique_ptr<GgmlAttention> peer;
  Row row{x.text, threads, 0, 0, 0, 0, 0, {}, 0, x.why_not_ggml};
  if (!a.ggml) row.no_ggml = "not asked for";
  if (row.no_ggml.empty()) peer = GgmlAttention::make(x, threads, &row.no_ggml);
  std::vector<double> ours, theirs, ratios;
  const double begin = now();
  for (int n = 0; n <= a.repeats || (now() - begin < a.seconds && n < 1000); ++n) {
    double t = now();
    attend(x.plan, x.q.view, x.k.view, x.v.view, out, options);
    const double mine = now() - t;
    t = now();
    if (peer) peer->run();
    const double its = now() - t;
    if (n == 0) continue;
    ours.push_back(mine);
    theirs.push_back(its);
    ratios.push_back(its / mine);
  }
  const Problem& p = x.plan.problem;
  row.seconds = median(ours);
  row.gflops = cost(x.plan).pairs * 2 * double(p.dk + p.dv) / row.seconds / 1e9;
  row.peak_share = row.gflops / peaks.gflops;
  row.gbs = x.kv_bytes() / row.seconds / 1e9;
  row.read_share = row.gbs / peaks.read_gbs;
  if (peer) {
    row.ggml_seconds = median(theirs);
    row.ratio = median(ratios);
  }
  return row;
}

void print(const Row& r) {
  const std::string peer = r.ggml_seconds
                               ? fmt::format("{:>9.3f} {:>6.2f}x", *r.ggml_seconds * 1e3, r.ratio)
                               : fmt::format("{:>9} {:>7}", "-", "-");
  fmt::print("{:>2} {:>10.3f} {:>8.1f} {:>5.0f}% {:>7.2f} {:>5.0f}% {}  {}\n", r.threads,
             r.seconds * 1e3, r.gflops, r.peak_share * 100, r.gbs, r.read_share * 100, peer,
             r.problem);
  std::fflush(stdout);
}

nlohmann::json to_json(const Row& r) {
  nlohmann::json j{{"problem", r.problem},       {"threads", r.threads},
                   {"seconds", r.seconds},       {"gflops", r.gflops},
                   {"peak_share", r.peak_share}, {"kv_gbs", r.gbs},
                   {"read_share", r.read_share}};
  if (r.ggml_seconds) {
    j["ggml_seconds"] = *r.ggml_seconds;
    j["ggml_ratio"] = r.ratio;
  } else {
    j["no_ggml"] = r.no_ggml;
  }
  return j;
}

void write(const std::string& file, const nlohmann::json& j) {
  const std::string temporary = file + ".part";
  std::ofstream out(temporary);
  out << j.dump(1) << '\n';
  out.close();
  if (!out || std::rename(temporary.c_str(), file.c_str()) != 0)
    throw Error(fmt::format("bench: cannot write '{}'", file));
}

void bench(const Arguments& a) {
  std::vector<std::string> lines = a.problems;
  if (!a.files.empty() || lines.empty()) {
    const std::vector<std::string> more = read_problems(a.files);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  lines = in_each(lines, a.numerics);
  nlohmann::json rows = nlohmann::json::array(), machine = nlohmann::json::array();
  std::vector<cpu::Peaks> peaks;
  for (int t : a.threads) {
    peaks.push_back(cpu::measure_peaks(t));
    const cpu::Peaks& p = peaks.back();
    fmt::print("{} on {} thread{}: FMA {:.0f} GFLOP/s, ", cpu_target(), t, t > 1 ? "s" : "",
               p.gflops);
    if (p.bf16_gflops > 0)
      fmt::print("bf16 pairs {:.0f}, int8 quads {:.0f}, ", p.bf16_gflops, p.int8_gops);
    fmt::print("read {:.1f} GB/s\n", p.read_gbs);
    machine.push_back({{"threads", t},
                       {"gflops", p.gflops},
                       {"bf16_gflops", p.bf16_gflops},
                       {"int8_gops", p.int8_gops},
                       {"read_gbs", p.read_gbs}});
  }
  fmt::print("{:>2} {:>10} {:>8} {:>6} {:>7} {:>6} {:>9} {:>7}  {}\n", "th", "ms", "GFLOP/s",
             "peak", "KV GB/s", "read", "ggml ms", "ggml", "problem");
  for (const std::string& line : lines) {
    const TextProblem x = parse_problem(line);
    for (size_t t = 0; t < a.threads.size(); ++t) {
      const Row row = time_one(x, a.threads[t], peaks[t], a);
      print(row);
      rows.push_back(to_json(row));
    }
  }
  if (a.json.empty()) return;
  write(a.json, {{"target", cpu_target()}, {"machine", machine}, {"rows", rows}});
}

}  // namespace

void add_bench(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb =
      app.add_subcommand("bench", "Time text problems, beside the machine's peaks and ggml.");
  verb->footer(
      "Medians of at least 7 rounds after one of warm-up; regard and ggml alternate within a "
      "round,\n"
      "and the ratio is the median of the rounds' ratios. FLOPs count allowed pairs only.\n"
      "Example: regard bench bench/problems/bench.txt --json bench.json\n"
      "         regard bench --problem \"h8:2 nq512 nk16384 d128 kv=f16 causal\" --threads 1");
  verb->add_option("files", a->files, "Files with one problem a line");
  verb->add_option("--problem", a->problems, "One problem, as a line of such a file");
  verb->add_option("--numeric", a->numerics, "Arithmetics to run each line in: f32, bf16, int8")
      ->delimiter(',')
      ->check(CLI::IsMember(numerics()));
  verb->add_option("--threads", a->threads, "Numbers of threads to try")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  verb->add_option("--repeats", a->repeats, "Least number of rounds")->check(CLI::Range(1, 100000));
  verb->add_option("--seconds", a->seconds, "Least time for each line")
      ->check(CLI::Range(0., 3600.));
  verb->add_flag("!--no-ggml", a->ggml, "Leave ggml's kernel out");
  verb->add_option("--json", a->json, "Write the table here too");
  verb->callback([a] { bench(*a); });
}

}  // namespace regard::cli
