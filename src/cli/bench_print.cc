#include "cli/bench_print.h"

#include <fmt/format.h>

#include <fstream>

#include "core/parallel.h"

namespace regard::cli {
namespace {

std::string times(const BenchRow& r, const char* measure) {
  const auto it = r.measures.find(measure);
  return it == r.measures.end() ? "-" : fmt::format("{:.2f}x", it->second.value);
}

std::string percent(const BenchRow& r, const char* measure) {
  const auto it = r.measures.find(measure);
  return it == r.measures.end() ? "-" : fmt::format("{:.0f}%", it->second.value * 100);
}

std::string target_text(const BenchRow& r, const Target& t) {
  const char* sign = t.at_most ? "<=" : ">=";
  switch (judge_target(r, t)) {
    case Verdict::unknown:
      return fmt::format("{} ? {} {:g}", t.measure, sign, t.value);
    case Verdict::pass:
    case Verdict::miss:
      break;
  }
  if (!r.refused.empty()) return fmt::format("{} {} {:g} MISS", t.measure, sign, t.value);
  const bool pass = judge_target(r, t) == Verdict::pass;
  return fmt::format("{} {:.3g} {} {:g} {}", t.measure, r.measures.at(t.measure).value, sign,
                     t.value, pass ? "pass" : "MISS");
}

std::string row_text(const BenchRow& r) {
  std::string out = fmt::format("{:>4}", r.threads);
  if (!r.refused.empty()) {
    out += "  refused: " + r.refused;
  } else {
    const std::string base = r.measures.count("plan")   ? percent(r, "plan")
                             : r.measures.count("rate") ? times(r, "rate")
                                                        : "-";
    out += fmt::format(" {:>10.3f} {:>3.0f}%", r.seconds.value * 1e3, r.seconds.spread * 100);
    out += r.plan ? fmt::format(" {:>8} {:>5} {:>7} {:>5}", "plan", "-", "-", "-")
                  : fmt::format(" {:>8.1f} {:>5} {:>7.2f} {:>5}", r.gflops, percent(r, "peak"),
                                r.kv_gbs, percent(r, "read"));
    out += fmt::format(" {:>7} {:>7} {:>7}", times(r, "ggml"), base, times(r, "scaling"));
  }
  for (const Target& t : r.targets) out += "  " + target_text(r, t);
  return out + "\n";
}

// Errors and peers, which most problems do not have.
std::string extra_text(const BenchRow& r) {
  std::string out;
  if (r.threads == 1 && r.error > 0) {
    out += fmt::format("  rms error {:.1e}", r.error);
    if (r.ggml_error > 0) out += fmt::format(", ggml's {:.1e}", r.ggml_error);
  }
  for (const auto& [name, seconds] : r.other)
    if (name != "ggml")
      out += fmt::format("{}{} {:.3f} ms ({:.2f}x)", out.empty() ? "  " : ", ", name,
                         seconds.value * 1e3, seconds.value / r.seconds.value);
  return out.empty() ? "" : "    " + out + "\n";
}

}  // namespace

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

std::string unrest(const BenchMachine& m) {
  constexpr double kLeast = 0.85;  // of n times one thread's rate; clocks fall a little with n
  for (const cpu::PeakSummary& p : m.peaks) {
    const cpu::PeakSummary& one = m.peaks[0];
    const double times = double(p.threads) / one.threads;
    if (p.threads > one.threads && p.threads <= processors() &&
        p.fma_gflops < kLeast * times * one.fma_gflops)
      return fmt::format(
          "{} threads multiply only {:.2f} times as fast as {}: another program has the "
          "processors, or they share cores",
          p.threads, p.fma_gflops / one.fma_gflops, one.threads);
  }
  return "";
}

std::string machine_text(const BenchMachine& m) {
  std::string out = fmt::format("{}, {}\n", m.cpu, m.target);
  for (const cpu::PeakSummary& p : m.peaks) {
    out += fmt::format("{} thread{}: f32 FMA {:.0f} GFLOP/s", p.threads, p.threads > 1 ? "s" : "",
                       p.fma_gflops);
    if (p.bf16_gflops > 0) out += fmt::format(", bf16 pairs {:.0f} GFLOP/s", p.bf16_gflops);
    if (p.int8_gops > 0) out += fmt::format(", int8 fours {:.0f} GOP/s", p.int8_gops);
    out += fmt::format(", read {:.1f} GB/s\n", p.read_gbs);
  }
  for (const auto& [name, what] : m.peers) out += fmt::format("{}: {}\n", name, what);
  if (const std::string why = unrest(m); !why.empty()) out += "NOT QUIET: " + why + "\n";
  return out;
}

std::string group_head(const ProblemFile& file) {
  const std::string note = file.note.empty() ? "" : file.note + "\n";
  return fmt::format("\n{}\n{}  th {:>10} {:>4} {:>8} {:>5} {:>7} {:>5} {:>7} {:>7} {:>7}  {}\n",
                     file.name, note, "ms", "+-", "GFLOP/s", "peak", "KV GB/s", "read", "ggml",
                     "base", "scaling", "targets");
}

std::string rows_text(const std::vector<BenchRow>& rows) {
  std::string out = rows.at(0).problem + "\n";
  for (const BenchRow& r : rows) out += row_text(r) + extra_text(r);
  for (const auto& [who, why] : rows[0].why)
    if (why != "not asked for") out += fmt::format("      {}: {}\n", who, why);
  return out;
}

std::string summary_text(const std::vector<BenchRow>& rows) {
  int pass = 0;
  std::string missed, unknown;
  const BenchRow* worst = nullptr;
  for (const BenchRow& r : rows) {
    const auto g = r.measures.find("ggml");
    if (g != r.measures.end() && (!worst || g->second.value < worst->measures.at("ggml").value))
      worst = &r;
    for (const Target& t : r.targets) {
      const Verdict v = judge_target(r, t);
      pass += v == Verdict::pass;
      if (v == Verdict::pass) continue;
      std::string& list = v == Verdict::miss ? missed : unknown;
      list += fmt::format("  {} [{} thread{}] {}\n", r.problem, r.threads, r.threads > 1 ? "s" : "",
                          target_text(r, t));
    }
  }
  std::string out = fmt::format("\n{} targets passed\n", pass);
  if (!missed.empty()) out += "missed:\n" + missed;
  if (!unknown.empty()) out += "not measured:\n" + unknown;
  if (worst)
    out += fmt::format("worst ratio against ggml: {} ({}, {} thread{})\n", times(*worst, "ggml"),
                       worst->problem, worst->threads, worst->threads > 1 ? "s" : "");
  return out;
}

nlohmann::ordered_json bench_json(const BenchMachine& m, const std::vector<BenchRow>& rows) {
  using json = nlohmann::ordered_json;
  json out{{"cpu", m.cpu}, {"target", m.target}};
  if (const std::string why = unrest(m); !why.empty()) out["not_quiet"] = why;
  for (const cpu::PeakSummary& p : m.peaks)
    out["peaks"].push_back({{"threads", p.threads},
                            {"fma_gflops", p.fma_gflops},
                            {"bf16_gflops", p.bf16_gflops},
                            {"int8_gops", p.int8_gops},
                            {"read_gbs", p.read_gbs}});
  for (const auto& [name, what] : m.peers) out["peers"][name] = what;
  out["rows"] = json::array();
  for (const BenchRow& r : rows) {
    json j{{"group", r.group}, {"problem", r.problem}, {"threads", r.threads}};
    if (!r.refused.empty()) {
      j["refused"] = r.refused;
      out["rows"].push_back(j);
      continue;
    }
    j["timed"] = r.plan ? "plan" : "attend";
    j["seconds"] = r.seconds.value;
    j["spread"] = r.seconds.spread;
    if (!r.plan) j["gflops"] = r.gflops, j["kv_gbs"] = r.kv_gbs;
    if (r.error > 0) j["error"] = r.error;
    if (r.ggml_error > 0) j["ggml_error"] = r.ggml_error;
    for (const auto& [name, x] : r.measures) j["measures"][name] = {x.value, x.spread};
    for (const auto& [name, x] : r.other) j["seconds_of"][name] = x.value;
    for (const auto& [name, why] : r.why) j["not_timed"][name] = why;
    for (const Target& t : r.targets) {
      const Verdict v = judge_target(r, t);
      j["targets"].push_back({{"measure", t.measure},
                              {t.at_most ? "at_most" : "at_least", t.value},
                              {"verdict", v == Verdict::pass   ? "pass"
                                          : v == Verdict::miss ? "miss"
                                                               : "unknown"}});
    }
    out["rows"].push_back(j);
  }
  return out;
}

}  // namespace regard::cli
