// attend and explain: the ordered list of implementations, the merge driver, the finish.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/parallel.h"
#include "cpu/cpu.h"
#include "cpu/isa.h"
#include "cpu/items.h"
#include "exec/pool_keys.h"
#include "plan/validate.h"
#include "plan/work.h"
#include "ref/ref.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard {
namespace {

struct Call {
  const Plan& plan;
  const View &q, &k, &v;
  const Out& out;
  int threads;
};

// Branch `n` of a call as a kernel sees it; owns what the view of it borrows.
struct Prepared {
  Tensor k, v, key_bias;  // pooled copies
  RowRanges ranges;
  Work work;
};

void prepare(const Call& c, size_t n, Prepared* out) {
  const Branch& br = c.plan.branches[n];
  Work& w = out->work;
  w.problem = c.plan.problem;
  w.branch = &br;
  w.q = c.q, w.k = c.k, w.v = c.v;
  w.key_bias = br.score.key_bias.view;
  w.threads = c.threads;
  w.out = c.out;
  if (br.source.kind == SourceKind::pooled) {
    pool_keys(c.plan.problem, br, c.k, c.v, c.threads, &out->k, &out->v, &out->key_bias);
    w.k = out->k.view, w.v = out->v.view, w.key_bias = out->key_bias.view;
    w.problem.nk = source_keys(c.plan.problem, br);
  }
  out->ranges = row_ranges(c.plan.problem, br);
  w.ranges = &out->ranges;
  if (br.cover.list) w.lists = {br.cover.list.get()};
}

// -------------------------------------------------------------------------------------------------
// cpu: one branch straight into the output; several through Partials and the one merge.

std::string cpu_refusal(const Call& c) {
  if (c.out.column_mass) return "column mass is computed by ref only";
  for (size_t n = 0; n < c.plan.branches.size(); ++n) {
    Work w;
    w.problem = c.plan.problem;
    w.branch = &c.plan.branches[n];
    w.q = c.q, w.k = c.k, w.v = c.v, w.out = c.out;
    w.key_bias = w.branch->score.key_bias.view;
    if (std::string why = cpu::refusal(w); !why.empty()) return why;
  }
  return "";
}

struct Partials {
  std::vector<float> acc, max, sum;
  explicit Partials(const Problem& p)
      : acc(size_t(p.batch * p.heads * p.nq * p.dv)),
        max(size_t(p.batch * p.heads * p.nq)),
        sum(max.size()) {}
  PartialView view() { return {acc.data(), max.data(), sum.data()}; }
};

// acc becomes the output row; returns its lse.
float finish(PartialHead<float> part, const Norm& norm, int64_t h, float* acc, int64_t dv) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  if (norm.kind == NormKind::sigmoid) return lse(part);
  const float factor =
      norm.kind == NormKind::softmax_sink ? add_sink(part, norm.sink[size_t(h)]) : 1.0f;
  if (part.sum == 0) {
    std::fill(acc, acc + dv, 0.0f);
    return -kInf;
  }
  for (int64_t c = 0; c < dv; ++c) acc[c] *= factor / part.sum;
  return lse(part);
}

void merge_rows(const Call& c, std::vector<Partials>* parts) {
  const Problem& p = c.plan.problem;
  const bool gated = c.plan.combine == Combine::gated;
  parallel_for(p.batch * p.heads, c.threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.heads, h = bh % p.heads;
    std::vector<float> row(size_t(p.dv));
    for (int64_t i = 0; i < p.nq; ++i) {
      const size_t id = size_t(bh * p.nq + i);
      std::fill(row.begin(), row.end(), 0.0f);
      PartialHead<float> total;
      for (size_t n = 0; n < parts->size(); ++n) {
        Partials& part = (*parts)[n];
        float* acc = &part.acc[id * size_t(p.dv)];
        const PartialHead<float> head{part.max[id], part.sum[id]};
        if (!gated) {
          merge(total, row.data(), head, acc, p.dv);
          continue;
        }
        const float branch_lse = finish(head, c.plan.branches[n].norm, h, acc, p.dv);
        const float gate = reinterpret_cast<const float*>(c.plan.gate.view.at(b, h, i))[n];
        for (int64_t d = 0; d < p.dv; ++d) row[size_t(d)] += gate * acc[d];
        merge(total, acc, {branch_lse, std::isinf(branch_lse) ? 0.0f : 1.0f}, acc, 0);
      }
      const float row_lse =
          gated ? lse(total) : finish(total, c.plan.branches[0].norm, h, row.data(), p.dv);
      write_row(c.out.out, b, h, i, row.data());
      if (c.out.lse) write_row(c.out.lse, b, h, i, &row_lse);
    }
  });
}

void cpu_run(const Call& c) {
  if (fusible(c.plan)) {
    Prepared all;
    prepare(c, 0, &all);
    for (size_t n = 1; n < c.plan.branches.size(); ++n)
      all.work.lists.push_back(c.plan.branches[n].cover.list.get());
    return cpu::run(all.work);
  }
  std::vector<Partials> parts;
  for (size_t n = 0; n < c.plan.branches.size(); ++n) {
    Prepared one;
    prepare(c, n, &one);
    one.work.finish = c.plan.combine == Combine::only;
    if (!one.work.finish) one.work.partial = parts.emplace_back(c.plan.problem).view();
    cpu::run(one.work);
  }
  if (!parts.empty()) merge_rows(c, &parts);
}

// -------------------------------------------------------------------------------------------------

struct Implementation {
  const char* name;
  std::string (*refusal)(const Call&);
  void (*run)(const Call&);
};

// Fastest first, the reference last.
constexpr Implementation kImplementations[] = {
    {"cpu", cpu_refusal, cpu_run},
    {"ref", [](const Call&) { return std::string(); },
     [](const Call& c) { ref::attend(c.plan, c.q, c.k, c.v, c.out, c.threads); }},
};

int thread_count(int asked) {
  if (asked == 0) return hardware_threads();
  if (asked < 0 || asked > 4096)
    throw Error(fmt::format("attend: threads must be 0 (all) or 1 to 4096, got {}", asked));
  return asked;
}

void check_out(const Problem& p, const Out& out) {
  const auto want = [&](const char* name, const View& v, std::array<int64_t, 4> size, bool half) {
    const bool type_ok = v.dtype == DType::f32 || v.dtype == DType::f64 ||
                         (half && (v.dtype == DType::f16 || v.dtype == DType::bf16));
    if (v.size != size || !type_ok)
      throw Error(fmt::format("attend: {} is {}; accepted: {} [{},{},{},{}]", name, v.shape(),
                              half ? "f64, f32, f16 or bf16" : "f64 or f32", size[0], size[1],
                              size[2], size[3]));
  };
  if (!out.out) throw Error("attend: no output given");
  want("out", out.out, {p.batch, p.heads, p.nq, p.dv}, true);
  if (out.lse) want("lse", out.lse, {p.batch, p.heads, p.nq, 1}, false);
  if (out.column_mass) want("column mass", out.column_mass, {p.batch, p.heads, 1, p.nk}, false);
}

void check_call(const Plan& plan, const View& q, const View& k, const View& v, const Out& out) {
  const Problem have = Problem::of_views(q, k, v);
  const Problem& p = plan.problem;
  if (have.batch != p.batch || have.heads != p.heads || have.kv_heads != p.kv_heads ||
      have.nq != p.nq || have.nk != p.nk || have.dk != p.dk || have.dv != p.dv)
    throw Error(fmt::format("attend: the plan is for {}, the views are {}", p.str(), have.str()));
  for (const View* x : {&q, &k, &v, &out.out})
    if (x->device != Device::cpu) throw Error("attend: views on a GPU, but this build has no GPU");
  check_form(plan);
  check_out(p, out);
  if (out.column_mass &&
      (plan.branches.size() != 1 || plan.branches[0].source.kind != SourceKind::raw))
    throw Error("attend: column mass needs a plan of one raw branch");
}

std::vector<Choice> choices(const Call& c, const RunOptions& options) {
  std::vector<Choice> out;
  bool found = false, known = options.impl.empty();
  for (const Implementation& impl : kImplementations) {
    Choice choice{impl.name, impl.refusal(c), false};
    const bool wanted = options.impl.empty() || options.impl == impl.name;
    known |= options.impl == impl.name;
    choice.chosen = !found && wanted && choice.refusal.empty();
    found |= choice.chosen;
    out.push_back(choice);
  }
  if (!known) {
    std::string names;
    for (const Choice& x : out) names += (names.empty() ? "" : ", ") + x.name;
    throw Error(fmt::format("attend: no implementation '{}'; accepted: {}", options.impl, names));
  }
  return out;
}

}  // namespace

std::vector<Choice> explain(const Plan& plan, const View& q, const View& k, const View& v,
                            const Out& out, const RunOptions& options) {
  check_call(plan, q, k, v, out);
  return choices({plan, q, k, v, out, thread_count(options.threads)}, options);
}

void attend(const Plan& given, const View& q, const View& k, const View& v, const Out& out,
            const RunOptions& options) {
  check_call(given, q, k, v, out);
  const Ctx ctx{thread_count(options.threads), options.trace};
  Plan lowered;
  if (!given.lowered) {
    const StageTimer timer(ctx, "lower");
    (lowered = given).lower();
  }
  const Plan& plan = given.lowered ? given : lowered;
  const Call call{plan, q, k, v, out, ctx.threads};
  const std::vector<Choice> list = choices(call, options);
  const auto chosen =
      std::find_if(list.begin(), list.end(), [](const Choice& c) { return c.chosen; });
  std::string refusals;
  for (auto c = list.begin(); c != chosen; ++c)
    if (!c->refusal.empty() && (options.impl.empty() || options.impl == c->name))
      refusals += (refusals.empty() ? "" : "; ") + c->name + ": " + c->refusal;
  if (chosen == list.end()) throw Error("attend: no implementation can run this: " + refusals);
  if (options.strict && !refusals.empty())
    throw Error(fmt::format("attend (strict): would fall back to {}: {}", chosen->name, refusals));
  if (ctx.trace) {
    ctx.trace->chosen = chosen->name;
    if (!refusals.empty()) ++ctx.trace->fallbacks[refusals];
  }
  const StageTimer timer(ctx, "attend");
  kImplementations[chosen - list.begin()].run(call);
}

std::string numeric_refusal(const std::string& name) {
  const std::vector<std::string>& known = numerics();
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw Error(fmt::format("numeric '{}' is unknown; accepted: {}", name, fmt::join(known, ", ")));
  return cpu::numeric_refusal(cpu::parse_numeric(name));
}

// ggml rounds queries to 8 bits where keys are quantised, and to nothing where they are f16 or f32.
std::string default_numeric(const Problem& p, DType keys) {
  if (info(keys).block == 1) return "f32";
  if (p.nq * p.group() <= cpu::kFewRows) return "int16";
  return numeric_refusal("bf16").empty() ? "bf16" : "f32";
}

const char* version() { return "0.1.0"; }
std::string cpu_target() { return cpu::target(); }
int hardware_threads() { return processors(); }

}  // namespace regard
