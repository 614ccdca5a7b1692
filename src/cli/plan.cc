// regard plan METHOD: the plan a method makes, printed or drawn.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/arguments.h"
#include "cli/picture.h"
#include "cli/verbs.h"
#include "io/io.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

struct Arguments {
  MethodArguments method;
  InputArguments input;
  std::vector<int64_t> heads;
  std::string svg;
  bool json = false;
  int threads = 0;
};

nlohmann::ordered_json summary(const Method& m, const Plan& plan, const Trace& trace) {
  const Cost c = cost(plan);
  return {{"method", m.spec()},
          {"problem", plan.problem.str()},
          {"hash", fmt::format("{:016x}", hash(plan))},
          {"density", c.density()},
          {"head_density", head_densities(plan)},
          {"cost",
           {{"pairs", c.pairs},
            {"exact_pairs", c.causal_pairs},
            {"tile_pairs", c.tile_pairs},
            {"tiles", c.tiles},
            {"flops", c.flops},
            {"bytes", c.bytes}}},
          {"seconds", trace.seconds},
          {"plan", nlohmann::ordered_json::parse(to_json(plan))}};
}

void run(const Arguments& a) {
  const Method m = a.method.parse();
  const LoadedInputs x = a.input.load(false);
  std::vector<int64_t> heads = a.heads;
  for (const int64_t h : heads)
    if (h < 0 || h >= x.inputs.problem.heads)
      throw Error(fmt::format("plan: --head {}; accepted: 0 to {}", h, x.inputs.problem.heads - 1));
  if (heads.empty()) {
    heads.resize(size_t(x.inputs.problem.heads));
    std::iota(heads.begin(), heads.end(), 0);
  }
  Trace trace;
  const Plan plan = make_plan(m, x.inputs, {a.threads ? a.threads : 1, &trace});
  if (!a.svg.empty()) io::write_file(a.svg, svg_sheet(plan, heads));
  if (a.json) {
    fmt::print("{}\n", summary(m, plan, trace).dump(2));
    return;
  }
  fmt::print("{}\n{}\n{}", m.spec(), describe(plan), text_maps(plan, heads));
  for (const auto& [stage, seconds] : trace.seconds)
    fmt::print("  {}: {:.1f} ms\n", stage, 1e3 * seconds);
  if (!a.svg.empty()) fmt::print("  drawn: {}\n", a.svg);
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("plan", "Show which pairs a method reads on given tensors");
  auto a = std::make_shared<Arguments>();
  a->method.add(*verb);
  a->input.add(*verb, true);
  verb->add_option("--head", a->heads, "draw these heads only");
  verb->add_option("--svg", a->svg, "also draw the heads into this file");
  verb->add_flag("--json", a->json, "densities, cost, times and the whole plan as JSON");
  add_threads(*verb, &a->threads);
  verb->footer(
      "Examples:\n"
      "  regard plan xattention --planted mixed --heads 7 --tokens 4096 --svg plan.svg\n"
      "  regard plan a_shape:n_local=512 --in qkv.safetensors --head 0");
  verb->callback([a] { run(*a); });
}

}  // namespace regard::cli
