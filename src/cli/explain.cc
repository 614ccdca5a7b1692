// regard explain METHOD: which implementation would run it, and why the others would not.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/verbs.h"
#include "regard/run.h"

namespace regard::cli {
namespace {

struct Arguments {
  MethodArguments method;
  InputArguments input;
  std::string device;
  bool json = false, column_mass = false;
  int threads = 0;
};

struct Answer {
  std::string refusal;  // of the method itself
  std::vector<Choice> choices;
  double density = 0;
};

Answer ask(const Arguments& a, const Method& m, const LoadedInputs& x) {
  Answer answer{refusal(m, x.inputs), {}, 0};
  if (!answer.refusal.empty()) return answer;
  const Problem& p = x.inputs.problem;
  const Plan plan = make_plan(m, x.inputs, {a.threads ? a.threads : hardware_threads(), nullptr});
  const Tensor out = make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dv});
  const Tensor lse = make_tensor(DType::f32, {p.batch, p.heads, p.nq, 1});
  Tensor mass;
  if (a.column_mass) mass = make_tensor(DType::f32, {p.batch, p.heads, 1, p.nk});
  answer.choices = explain(plan, x.inputs.q, x.inputs.k, x.inputs.v,
                           {out.view, lse.view, mass.view}, {a.threads, a.device, false, nullptr});
  answer.density = cost(plan).density();
  return answer;
}

void run(const Arguments& a) {
  const Method m = a.method.parse();
  const LoadedInputs x = a.input.load(true);
  const Answer answer = ask(a, m, x);
  const std::string problem = x.inputs.problem.str();
  if (a.json) {
    auto list = nlohmann::ordered_json::array();
    for (const Choice& c : answer.choices)
      list.push_back({{"name", c.name}, {"chosen", c.chosen}, {"refusal", c.refusal}});
    const nlohmann::ordered_json j = {{"method", m.spec()},         {"problem", problem},
                                      {"refusal", answer.refusal},  {"density", answer.density},
                                      {"cpu_target", cpu_target()}, {"implementations", list}};
    fmt::print("{}\n", j.dump(2));
    return;
  }
  fmt::print("{} on {}, q {}, k {}, v {}\n", m.spec(), problem, x.inputs.q.shape(),
             x.inputs.k.shape(), x.inputs.v.shape());
  if (!answer.refusal.empty()) {
    fmt::print("  the method refuses: {}\n", answer.refusal);
    return;
  }
  fmt::print("  density {:.4f}; instruction set {}\n", answer.density, cpu_target());
  for (const Choice& c : answer.choices)
    fmt::print("  {:<6} {}\n", c.name,
               c.chosen            ? "chosen"
               : c.refusal.empty() ? "could, not chosen"
                                   : "refuses: " + c.refusal);
}

}  // namespace

void add_explain(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("explain", "Show which implementation would run, and every refusal");
  auto a = std::make_shared<Arguments>();
  a->method.add(*verb);
  a->input.add(*verb, true);
  verb->add_option("--device", a->device, "as if forced: cpu or ref");
  verb->add_flag("--column-mass", a->column_mass, "as if column mass were asked for");
  verb->add_flag("--json", a->json, "the answer as JSON");
  add_threads(*verb, &a->threads);
  verb->footer("Example:\n  regard explain vertical_slash --planted mixed --tokens 1024");
  verb->callback([a] { run(*a); });
}

}  // namespace regard::cli
