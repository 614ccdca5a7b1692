// regard attend METHOD: a method on a user's own q, k, v.
#include <fmt/format.h>

#include <chrono>

#include "cli/gpu.h"
#include "cli/verbs.h"
#include "io/io.h"
#include "regard/run.h"

namespace regard::cli {
namespace {

struct Arguments {
  MethodArguments method;
  InputArguments input;
  DeviceArgument device;
  std::string out, dtype = "f32";
  bool strict = false, column_mass = false;
  int threads = 0;
};

void run(const Arguments& a) {
  const Method m = a.method.parse();
  const LoadedInputs x = a.input.load(true);
  const PlacedInputs placed(x, a.device);
  const Problem& p = x.inputs.problem;
  Trace trace;
  std::string why_on_cpu;
  const RunOptions options{a.threads, a.device.implementation(), a.strict, &trace};
  const auto begin = std::chrono::steady_clock::now();
  const Plan plan =
      placed.plan(m, {a.threads ? a.threads : hardware_threads(), &trace}, &why_on_cpu);
  placed.wait();
  const std::chrono::duration<double, std::milli> planning =
      std::chrono::steady_clock::now() - begin;
  Tensor out = placed.output(parse_dtype(a.dtype), {p.batch, p.heads, p.nq, p.dv});
  Tensor lse = placed.output(DType::f32, {p.batch, p.heads, p.nq, 1});
  Tensor mass;
  if (a.column_mass) mass = placed.output(DType::f32, {p.batch, p.heads, 1, p.nk});
  const Inputs& in = placed.inputs();
  attend(plan, in.q, in.k, in.v, {out.view, lse.view, mass.view}, options);
  for (Tensor* t : {&out, &lse, &mass}) *t = placed.on_host(*t);

  // [B, heads, nq, 1] as the [B, heads, nq] that people expect.
  const auto rows = [](const Tensor& t, int64_t n) {
    return contiguous(t.view.data, DType::f32, {1, t.view.size[0], t.view.size[1], n});
  };
  std::vector<io::Named> tensors = {{"out", out.view}, {"lse", rows(lse, p.nq), 3}};
  if (mass) tensors.push_back({"column_mass", rows(mass, p.nk), 3});
  io::save_safetensors(a.out, tensors, {{"method", m.spec()}, {"implementation", trace.chosen}});

  const Cost c = cost(plan);
  fmt::print("{}: {} on {}, density {:.4f}, {:.1f} ms planning, {:.1f} ms attention; wrote {}\n",
             m.spec(), p.str(), trace.chosen, c.density(), planning.count(),
             1e3 * trace.seconds["attend"], a.out);
  for (const auto& [reason, calls] : trace.fallbacks)
    fmt::print("  not on the first choice: {}\n", reason);
  if (!why_on_cpu.empty()) fmt::print("  planned on the CPU: {}\n", why_on_cpu);
}

}  // namespace

void add_attend(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("attend", "Apply a method to tensors from a file");
  auto a = std::make_shared<Arguments>();
  a->method.add(*verb);
  a->input.add(*verb, false);
  verb->add_option("--out", a->out,
                   "FILE.safetensors to write: out [B, H, N, Dv] and lse [B, H, N] (natural log)")
      ->required();
  a->device.add(*verb, "force an implementation");
  verb->add_option("--dtype", a->dtype, "type of out: f32, f16, bf16 or f64")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f64"}))
      ->capture_default_str();
  verb->add_flag("--column-mass", a->column_mass,
                 "also write how much attention each key got, [B, H, Nk]");
  verb->add_flag("--strict", a->strict, "an error rather than a slower implementation");
  add_threads(*verb, &a->threads);
  verb->footer(
      "Example:\n  regard attend xattention --in qkv.safetensors --out out.safetensors "
      "--set threshold=0.9");
  verb->callback([a] { run(*a); });
}

}  // namespace regard::cli
