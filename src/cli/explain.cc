// regard explain METHOD: which implementation would run it, why the others would not, what it
// costs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/explain_time.h"
#include "cli/verbs.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  MethodArguments method;
  InputArguments input;
  DeviceArgument device;
  bool json = false, column_mass = false, time = false, break_even = false;
  int threads = 0;
  int used_threads() const { return threads ? threads : hardware_threads(); }
};

struct Answer {
  std::string refusal;     // of the method itself
  std::string why_on_cpu;  // asked for a GPU: why planning is not done there
  std::vector<Choice> choices;
  double density = 0;
};

Answer ask(const Arguments& a, const Method& m, const PlacedInputs& x) {
  const Inputs& in = x.inputs();
  Answer answer;
  answer.refusal = refusal(m, in);
  if (!answer.refusal.empty()) return answer;
  const Problem& p = in.problem;
  const Plan plan = x.plan(m, {a.used_threads(), nullptr}, &answer.why_on_cpu);
  const Tensor out = x.output(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensor lse = x.output(DType::f32, {p.batch, p.heads, p.nq, 1});
  Tensor mass;
  if (a.column_mass) mass = x.output(DType::f32, {p.batch, p.heads, 1, p.nk});
  answer.choices = explain(plan, in.q, in.k, in.v, {out.view, lse.view, mass.view},
                           {a.threads, a.device.implementation(), false, nullptr});
  answer.density = cost(plan).density();
  return answer;
}

Json to_json(const Timing& t) {
  return {{"tokens", t.tokens},
          {"planning_s", t.plan},
          {"attention_s", t.attend},
          {"exact_s", t.exact},
          {"density", t.density},
          {"stages_s", t.stages},
          {"speedup", t.exact / t.total()}};
}

// Stages, dearest first; a stage may lie inside another, so shares need not add up.
void print(const Timing& t) {
  fmt::print("  planning {:.2f} ms, {:.1f} % of exact attention's {:.2f} ms\n", 1e3 * t.plan,
             100 * t.plan / t.exact, 1e3 * t.exact);
  std::vector<std::pair<std::string, double>> stages(t.stages.begin(), t.stages.end());
  std::stable_sort(stages.begin(), stages.end(),
                   [](const auto& x, const auto& y) { return x.second > y.second; });
  for (const auto& [stage, s] : stages)
    fmt::print("    {:<28} {:>9.2f} ms {:>6.1f} %\n", stage, 1e3 * s, 100 * s / t.exact);
  fmt::print("  attention {:.2f} ms; with planning {:.2f} ms, {:.2f} times as fast as exact\n",
             1e3 * t.attend, 1e3 * t.total(), t.exact / t.total());
}

void print(const std::vector<Timing>& by_length) {
  fmt::print("  {:>8} {:>8} {:>12} {:>12} {:>12} {:>8}\n", "tokens", "density", "planning ms",
             "attention ms", "exact ms", "as fast");
  for (const Timing& t : by_length)
    fmt::print("  {:>8} {:>8.3f} {:>12.2f} {:>12.2f} {:>12.2f} {:>7.2f}x\n", t.tokens, t.density,
               1e3 * t.plan, 1e3 * t.attend, 1e3 * t.exact, t.exact / t.total());
  if (const int64_t from = break_even(by_length))
    fmt::print("  faster than exact attention from {} tokens on\n", from);
  else
    fmt::print("  slower than exact attention at {} tokens\n", by_length.back().tokens);
}

void run(const Arguments& a) {
  const Method m = a.method.parse();
  if (a.break_even && a.input.planted.empty())
    throw Error("explain: --break-even needs inputs of any length; accepted: with --planted");
  const PlacedInputs x(a.input.load(true), a.device);
  const Answer answer = ask(a, m, x);
  const Inputs& in = x.inputs();
  const std::string problem = in.problem.str();
  const bool runs = answer.refusal.empty();
  std::vector<Timing> times;
  if (runs && a.break_even)
    times = time_lengths(m, a.input, a.used_threads(), a.device);
  else if (runs && a.time)
    times = {time_method(m, x, a.used_threads(), a.device)};
  if (a.json) {
    auto list = Json::array(), timed = Json::array();
    for (const Choice& c : answer.choices)
      list.push_back({{"name", c.name}, {"chosen", c.chosen}, {"refusal", c.refusal}});
    for (const Timing& t : times) timed.push_back(to_json(t));
    Json j = {{"method", m.spec()},         {"problem", problem},
              {"refusal", answer.refusal},  {"density", answer.density},
              {"cpu_target", cpu_target()}, {"implementations", list}};
    if (!answer.why_on_cpu.empty()) j["planned_on_cpu"] = answer.why_on_cpu;
    if (!times.empty()) j["times"] = timed;
    if (a.break_even && runs) j["break_even_tokens"] = break_even(times);
    fmt::print("{}\n", j.dump(2));
    return;
  }
  fmt::print("{} on {}, q {}, k {}, v {}\n", m.spec(), problem, in.q.shape(), in.k.shape(),
             in.v.shape());
  if (!runs) {
    fmt::print("  the method refuses: {}\n", answer.refusal);
    return;
  }
  fmt::print("  density {:.4f}; instruction set {}\n", answer.density, cpu_target());
  for (const Choice& c : answer.choices)
    fmt::print("  {:<6} {}\n", c.name,
               c.chosen            ? "chosen"
               : c.refusal.empty() ? "could, not chosen"
                                   : "refuses: " + c.refusal);
  if (!answer.why_on_cpu.empty()) fmt::print("  planned on the CPU: {}\n", answer.why_on_cpu);
  if (!times.empty()) print(times.back());
  if (a.break_even) print(times);
}

}  // namespace

void add_explain(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "explain", "Show which implementation would run, every refusal, and what the method costs");
  auto a = std::make_shared<Arguments>();
  a->method.add(*verb);
  a->input.add(*verb, true);
  a->device.add(*verb, "as if forced");
  verb->add_flag("--column-mass", a->column_mass, "as if column mass were asked for");
  verb->add_flag("--time", a->time,
                 "run it and exact attention (medians of 3): planning by stage, attention, ratio");
  verb->add_flag("--break-even", a->break_even,
                 "the same at 1K tokens, 2K, ... --tokens: from which length it is faster");
  verb->add_flag("--json", a->json, "the answer as JSON");
  add_threads(*verb, &a->threads);
  verb->footer(
      "Example:\n  regard explain vertical_slash --planted mixed --tokens 1024\n"
      "  regard explain xattention --planted mixed --tokens 16384 --dim 128 --break-even");
  verb->callback([a] { run(*a); });
}

}  // namespace regard::cli
