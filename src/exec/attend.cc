// attend and explain: the ordered list of implementations, the merge driver, the finish.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/parallel.h"
#include "cpu/cpu.h"
#include "cpu/isa.h"
#include "cpu/items.h"
#include "cuda/cuda.h"
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
  const View& pages;
  int threads;
  Call(const Plan& p, const Tensors& t, int n)
      : plan(p), q(t.q), k(t.k), v(t.v), out(t.out), pages(t.pages), threads(n) {}
};

// Branch `n` of a call as a kernel sees it; owns what the view of it borrows.
struct Prepared {
  Tensor k, v, key_bias;  // pooled copies
  Tensor mapped;          // values
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
  if (br.source.kind == SourceKind::given) {
    w.k = br.source.keys.view, w.v = br.source.values.view;
    w.problem.nk = source_keys(c.plan.problem, br);
  }
  if (br.source.kind == SourceKind::pooled) {
    pool_keys(c.plan.problem, br, c.k, c.v, c.threads, &out->k, &out->v, &out->key_bias);
    w.k = out->k.view, w.v = out->v.view, w.key_bias = out->key_bias.view;
    w.problem.nk = source_keys(c.plan.problem, br);
  }
  if (br.source.value_map) {
    out->mapped = map_values(br.source, w.v, c.threads);
    w.v = out->mapped.view;
  }
  out->ranges = row_ranges(c.plan.problem, br);
  w.ranges = &out->ranges;
  if (br.cover.list) w.lists = {br.cover.list.get()};
}

// -------------------------------------------------------------------------------------------------
// cpu: one branch straight into the output; several through Partials and the one merge.

std::string host_refusal(const Call& c) {
  if (c.q.device != Device::cpu) return "tensors are in a GPU's memory";
  if (c.pages) return "keys in pages; accepted: on a GPU";
  for (const Branch& b : c.plan.branches)
    for (const View* v : {&b.score.bias.view, &b.score.key_bias.view})
      if (*v && v->device != Device::cpu) return "bias in a GPU's memory";
  return "";
}

std::string cpu_refusal(const Call& c) {
  if (std::string why = host_refusal(c); !why.empty()) return why;
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

constexpr float kInf = std::numeric_limits<float>::infinity();

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
        merge(total, acc, {branch_lse, branch_lse == -kInf ? 0.0f : 1.0f}, acc, 0);
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

// A plan on the CPU needs nothing made ready.
class Host : public Ready {
 public:
  Host(const Plan& plan, int threads, void (*run)(const Call&))
      : plan_(plan), threads_(threads), run_(run) {}
  int64_t workspace() const override { return 0; }
  void run(const Tensors& t, void*, int64_t, void*) const override {
    run_(Call(plan_, t, threads_));
  }

 private:
  const Plan& plan_;
  int threads_;
  void (*run_)(const Call&);
};

void ref_run(const Call& c) { ref::attend(c.plan, c.q, c.k, c.v, c.out, c.threads); }

struct Implementation {
  const char* name;
  Device device;
  std::string (*refusal)(const Plan&, const Tensors&, int threads);
  // The result may refer to the plan.
  std::unique_ptr<Ready> (*ready)(const Plan&, const Tensors&, int threads);
};

// Fastest first, the reference last.
const Implementation kImplementations[] = {
    {"cuda_sm90", Device::cuda,
     [](const Plan& p, const Tensors& t, int) { return cuda::sm90_refusal(p, t); },
     [](const Plan& p, const Tensors& t, int) { return cuda::sm90_ready(p, t); }},
    {"cuda_sm80", Device::cuda,
     [](const Plan& p, const Tensors& t, int) { return cuda::sm80_refusal(p, t); },
     [](const Plan& p, const Tensors& t, int) { return cuda::sm80_ready(p, t); }},
    {"cpu", Device::cpu,
     [](const Plan& p, const Tensors& t, int n) { return cpu_refusal(Call(p, t, n)); },
     [](const Plan& p, const Tensors&, int n) -> std::unique_ptr<Ready> {
       return std::make_unique<Host>(p, n, cpu_run);
     }},
    {"ref", Device::cpu,
     [](const Plan& p, const Tensors& t, int n) { return host_refusal(Call(p, t, n)); },
     [](const Plan& p, const Tensors&, int n) -> std::unique_ptr<Ready> {
       return std::make_unique<Host>(p, n, ref_run);
     }},
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

// The keys and values as the problem counts them: pages are a way of storing.
View unpaged(const View& pool, const Problem& p) {
  View v = pool;
  v.size[0] = p.batch, v.size[2] = p.nk;
  return v;
}

void check_pages(const Problem& p, const Tensors& t) {
  const View& g = t.pages;
  const int64_t page = t.k.size[2];
  if (page < 1 || (page & (page - 1)) != 0 || t.v.size[2] != page || t.v.size[0] != t.k.size[0])
    throw Error(fmt::format(
        "attend: pools {} and {}; accepted: as many pages, of as many tokens, a power of two",
        t.k.shape(), t.v.shape()));
  const int64_t need = (p.nk + page - 1) / page;
  if (g.dtype != DType::i32 || g.size[0] != p.batch || g.size[1] != 1 || g.size[2] != 1 ||
      g.size[3] < need || g.stride[3] != 4)
    throw Error(fmt::format("attend: pages {}; accepted: i32[{},1,1,{} or more], rows contiguous",
                            g.shape(), p.batch, need));
}

void check_call(const Plan& plan, const Tensors& t) {
  const Problem& p = plan.problem;
  if (t.pages) check_pages(p, t);
  const Problem have =
      Problem::of_views(t.q, t.pages ? unpaged(t.k, p) : t.k, t.pages ? unpaged(t.v, p) : t.v);
  if (have.batch != p.batch || have.heads != p.heads || have.kv_heads != p.kv_heads ||
      have.nq != p.nq || have.nk != p.nk || have.dk != p.dk || have.dv != p.dv)
    throw Error(fmt::format("attend: the plan is for {}, the views are {}", p.str(), have.str()));
  const auto name = [](Device d) { return d == Device::cpu ? "the CPU" : "a GPU"; };
  for (const View* x : {&t.k, &t.v, &t.out.out, &t.out.lse, &t.out.column_mass, &t.pages})
    if (x->size[0] > 0 && x->device != t.q.device)
      throw Error(fmt::format("attend: q is on {}, {} on {}; accepted: one device",
                              name(t.q.device), x->shape(), name(x->device)));
  check_form(plan);
  check_out(p, t.out);
  if (t.out.column_mass &&
      (plan.branches.size() != 1 || plan.branches[0].source.kind != SourceKind::raw))
    throw Error("attend: column mass needs a plan of one raw branch");
}

std::vector<Choice> choices(const Plan& plan, const Tensors& t, int threads,
                            const RunOptions& options) {
  std::vector<Choice> out;
  bool found = false, known = options.impl.empty();
  for (const Implementation& impl : kImplementations) {
    Choice choice{impl.name, impl.refusal(plan, t, threads), false};
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

// The plan, or a copy in *own without the branches of one softmax whose lists hold nothing (lists
// on a GPU are not looked at).
const Plan& without_empty(const Plan& plan, Plan* own) {
  const auto empty = [](const Branch& b) {
    return b.cover.list && !b.cover.list.device() && b.cover.list->index.empty();
  };
  const std::vector<Branch>& all = plan.branches;
  if (plan.combine != Combine::same || std::none_of(all.begin(), all.end(), empty)) return plan;
  *own = plan;
  std::erase_if(own->branches, empty);
  if (own->branches.empty()) own->branches = {all[0]};
  own->branches[0].norm = all[0].norm;  // the first one's is that of all
  if (own->branches.size() == 1) own->combine = Combine::only;
  return *own;
}

// The implementation to use. An implementation for the other device refuses, and a faster one may
// leave work to a later one that is better at it ("left to ..."): passing those by is no fallback.
const Implementation& choose(const Plan& plan, const Tensors& t, int threads,
                             const RunOptions& options) {
  const std::vector<Choice> list = choices(plan, t, threads, options);
  const auto chosen =
      std::find_if(list.begin(), list.end(), [](const Choice& c) { return c.chosen; });
  std::string refusals;
  for (auto c = list.begin(); c != chosen; ++c) {
    const bool counts = options.impl.empty()
                            ? kImplementations[c - list.begin()].device == t.q.device
                            : options.impl == c->name;
    const bool left = chosen != list.end() && c->refusal.starts_with("left to ");
    if (!c->refusal.empty() && counts && !left)
      refusals += (refusals.empty() ? "" : "; ") + c->name + ": " + c->refusal;
  }
  if (chosen == list.end()) throw Error("attend: no implementation can run this: " + refusals);
  if (options.strict && !refusals.empty())
    throw Error(fmt::format("attend (strict): would fall back to {}: {}", chosen->name, refusals));
  if (options.trace) {
    options.trace->chosen = chosen->name;
    if (!refusals.empty()) ++options.trace->fallbacks[refusals];
  }
  return kImplementations[chosen - list.begin()];
}

}  // namespace

std::vector<Choice> explain(const Plan& plan, const Tensors& t, const RunOptions& options) {
  check_call(plan, t);
  Plan own;
  return choices(without_empty(plan, &own), t, thread_count(options.threads), options);
}

std::vector<Choice> explain(const Plan& plan, const View& q, const View& k, const View& v,
                            const Out& out, const RunOptions& options) {
  return explain(plan, {q, k, v, out, {}}, options);
}

void attend(const Plan& given, const Tensors& t, const RunOptions& options) {
  check_call(given, t);
  const Ctx ctx{thread_count(options.threads), options.trace};
  Plan lowered, own;
  if (!given.lowered) {
    const StageTimer timer(ctx, "lower");
    (lowered = given).lower(ctx.threads);
  }
  const Plan& plan = without_empty(given.lowered ? given : lowered, &own);
  const Implementation& impl = choose(plan, t, ctx.threads, options);
  const StageTimer timer(ctx, "attend");
  const std::unique_ptr<Ready> ready = impl.ready(plan, t, ctx.threads);
  std::shared_ptr<void> workspace;
  if (ready->workspace() > 0) workspace = cuda::allocate(ready->workspace());
  ready->run(t, workspace.get(), ready->workspace(), options.stream);
  if (impl.device == Device::cuda) cuda::synchronize(options.stream);
}

void attend(const Plan& plan, const View& q, const View& k, const View& v, const Out& out,
            const RunOptions& options) {
  attend(plan, {q, k, v, out, {}}, options);
}

struct Runner::State {
  Plan plan;
  Tensors made_for;
  const Implementation* implementation = nullptr;
  std::string name;
  std::unique_ptr<Ready> ready;
};

Runner::Runner(const Plan& plan, const Tensors& t, const RunOptions& options)
    : state_(std::make_unique<State>()) {
  check_call(plan, t);
  State& s = *state_;
  s.plan = plan, s.made_for = t;
  const int threads = thread_count(options.threads);
  s.plan.lower(threads);
  if (Plan own; &without_empty(s.plan, &own) == &own) s.plan = own;
  s.implementation = &choose(s.plan, t, threads, options);
  s.name = s.implementation->name;
  s.ready = s.implementation->ready(s.plan, t, threads);
}
Runner::~Runner() = default;
Runner::Runner(Runner&&) noexcept = default;
Runner& Runner::operator=(Runner&&) noexcept = default;

const std::string& Runner::implementation() const { return state_->name; }
int64_t Runner::workspace() const { return state_->ready->workspace(); }

void Runner::run(const Tensors& t, void* workspace, int64_t bytes, void* stream) const {
  const Tensors& m = state_->made_for;
  const auto same = [](const char* name, const View& got, const View& want) {
    if (got.dtype != want.dtype || got.device != want.device || got.size != want.size ||
        got.stride != want.stride || bool(got) != bool(want))
      throw Error(
          fmt::format("run: {} is {}, made ready for {} (sizes, type, strides, device, presence)",
                      name, got.shape(), want.shape()));
  };
  same("q", t.q, m.q), same("k", t.k, m.k), same("v", t.v, m.v), same("out", t.out.out, m.out.out);
  same("lse", t.out.lse, m.out.lse), same("pages", t.pages, m.pages);
  same("column mass", t.out.column_mass, m.out.column_mass);
  if (bytes < this->workspace() || (this->workspace() > 0 && !workspace))
    throw Error(fmt::format("run: a workspace of {} bytes; needed: {}", workspace ? bytes : 0,
                            this->workspace()));
  state_->ready->run(t, workspace, bytes, stream);
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
