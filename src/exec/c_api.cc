// The C face: structs into values, exceptions into text.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "regard/method.h"
#include "regard/regard.h"
#include "regard/run.h"
#include "regard/status.h"

struct regard_plan {
  regard::Plan plan;
};
struct regard_runner {
  regard::Runner runner;
};

namespace regard {
namespace {

thread_local std::string error_text;

template <class F>
int guarded(const F& f) {
  try {
    f();
    error_text.clear();
    return 0;
  } catch (const std::exception& e) {
    error_text = e.what();
  } catch (...) {
    error_text = "unknown error";
  }
  return -1;
}

template <class T>
const T& given(const T* x, const char* what) {
  if (!x) throw Error(fmt::format("regard: {} is null", what));
  if (x->struct_size != sizeof(T))
    throw Error(fmt::format("regard: {} says {} bytes, this library has {}; call its init function",
                            what, x->struct_size, sizeof(T)));
  return *x;
}

template <class T>
T* handle(T* x, const char* what) {
  if (!x) throw Error(fmt::format("regard: {} is null", what));
  return x;
}

View view_of(const regard_view& v, const char* name) {
  if (v.dtype < 0 || v.dtype > REGARD_I32 || v.device < 0 || v.device > REGARD_CUDA)
    throw Error(fmt::format("regard: {} has dtype {} on device {}; accepted: 0 to {}, 0 to {}",
                            name, v.dtype, v.device, int(REGARD_I32), int(REGARD_CUDA)));
  View out;
  out.data = v.data;
  out.dtype = DType(v.dtype);
  out.device = Device(v.device);
  for (size_t a = 0; a < 4; ++a) out.size[a] = v.size[a], out.stride[a] = v.stride[a];
  return out;
}

// Where there is no tensor there is no shape either.
View optional_view(const regard_view& v, const char* name) {
  return v.data ? view_of(v, name) : View{};
}

Tensors tensors_of(const regard_tensors* given_t) {
  const regard_tensors& t = given(given_t, "tensors");
  Tensors out;
  out.q = view_of(t.q, "q"), out.k = view_of(t.k, "k"), out.v = view_of(t.v, "v");
  out.out.out = optional_view(t.out, "out"), out.out.lse = optional_view(t.lse, "lse");
  out.pages = optional_view(t.pages, "pages");
  return out;
}

Problem problem_of(const regard_problem* given_p) {
  const regard_problem& x = given(given_p, "problem");
  Problem p;
  p.batch = x.batch, p.heads = x.heads, p.kv_heads = x.kv_heads;
  p.nq = x.nq, p.nk = x.nk, p.dk = x.dk, p.dv = x.dv;
  p.scale = std::isnan(x.scale) ? 1 / std::sqrt(float(x.dk)) : x.scale;
  p.offset = x.offset == std::numeric_limits<int64_t>::min() ? x.nk - x.nq : x.offset;
  if (x.sequences > 0) {
    if (!x.cu_q || !x.cu_k) throw Error("regard: sequences without cu_q and cu_k");
    p.cu_q.assign(x.cu_q, x.cu_q + x.sequences + 1);
    p.cu_k.assign(x.cu_k, x.cu_k + x.sequences + 1);
  }
  p.check();
  return p;
}

std::vector<float> per_head(const float* x, const Problem& p) {
  return x ? std::vector<float>(x, x + p.heads) : std::vector<float>();
}

std::shared_ptr<const IndexList> list_of(const regard_branch& x, const Problem& p, int64_t keys) {
  if (!x.start || !x.index) throw Error("regard: tiles and columns need start and index");
  if (x.bq < 1 || x.bk < 1 || x.list_batch < 1 || x.list_heads < 1)
    throw Error("regard: bq, bk, list_batch and list_heads must be positive");
  auto l = std::make_shared<IndexList>();
  l->batch = x.list_batch, l->heads = x.list_heads, l->bq = x.bq, l->bk = x.bk;
  l->rows = (p.nq + x.bq - 1) / x.bq, l->cols = (keys + x.bk - 1) / x.bk;
  const int64_t rows = l->batch * l->heads * l->rows;
  l->start.assign(x.start, x.start + rows + 1);
  for (int64_t r = 0; r < rows; ++r)
    if (l->start[size_t(r)] > l->start[size_t(r) + 1] || l->start[0] != 0)
      throw Error("regard: start must begin with 0 and not decrease");
  l->index.assign(x.index, x.index + l->start.back());
  return l;
}

Branch branch_of(const regard_branch& x, const Problem& p) {
  if (x.cover < REGARD_ALL || x.cover > REGARD_COLUMNS || x.norm < REGARD_SOFTMAX ||
      x.norm > REGARD_SIGMOID)
    throw Error(
        fmt::format("regard: cover {}, norm {}; accepted: 0 to 3, 0 to 2", x.cover, x.norm));
  Branch b;
  if (x.pooled > 1) b.source.kind = SourceKind::pooled, b.source.block = x.pooled;
  const int64_t keys = source_keys(p, b);
  b.cover.kind = CoverKind(x.cover);
  (x.cover == REGARD_BAND ? b.cover.band : b.rule.window) = {x.left, x.right, x.sink};
  if (x.cover == REGARD_TILES || x.cover == REGARD_COLUMNS) b.cover.list = list_of(x, p, keys);
  b.rule.causal = x.causal != 0;
  if (x.mask) {
    if (x.mask_batch < 1 || x.mask_heads < 1)
      throw Error("regard: mask_batch and mask_heads must be positive");
    auto m = std::make_shared<BitMask>();
    m->batch = x.mask_batch, m->heads = x.mask_heads, m->nq = p.nq, m->nk = keys;
    m->words.assign(x.mask, x.mask + m->batch * m->heads * m->nq * m->words_per_row());
    b.rule.mask = std::move(m);
  }
  b.score.softcap = x.softcap;
  b.score.alibi = per_head(x.alibi, p), b.score.bias_scale = per_head(x.bias_scale, p);
  b.score.bias.view = optional_view(x.bias, "bias");
  b.score.key_bias.view = optional_view(x.key_bias, "key_bias");
  b.norm.kind = NormKind(x.norm), b.norm.shift = x.shift;
  if (x.norm == REGARD_SOFTMAX_SINK) b.norm.sink = per_head(x.sink_logit, p);
  return b;
}

RunOptions options_of(const regard_options* o, void* stream) {
  RunOptions out;
  out.stream = stream;
  if (!o) return out;
  given(o, "options");
  out.threads = o->threads, out.strict = o->strict != 0;
  if (o->impl) out.impl = o->impl;
  return out;
}

template <class T>
void init(T* x) {
  if (!x) return;
  *x = T{};
  x->struct_size = sizeof(T);
}

}  // namespace
}  // namespace regard

using namespace regard;  // NOLINT

void regard_tensors_init(regard_tensors* x) { init(x); }
void regard_options_init(regard_options* x) { init(x); }
void regard_problem_init(regard_problem* x) {
  init(x);
  if (!x) return;
  x->batch = x->heads = x->kv_heads = 1;
  x->scale = std::numeric_limits<float>::quiet_NaN();
  x->offset = std::numeric_limits<int64_t>::min();
}
void regard_branch_init(regard_branch* x) {
  init(x);
  if (!x) return;
  x->left = x->right = -1;
  x->list_batch = x->list_heads = x->mask_batch = x->mask_heads = 1;
}

const char* regard_error(void) { return error_text.c_str(); }
const char* regard_version(void) { return version(); }

int regard_plan_create(const regard_problem* problem, const regard_branch* branches, int32_t count,
                       int32_t combine, const regard_view* gate, regard_plan** plan) {
  return guarded([&] {
    handle(plan, "plan")[0] = nullptr;
    if (count < 1 || count > 16 || combine < REGARD_ONLY || combine > REGARD_GATED)
      throw Error(fmt::format("regard: {} branches under combine {}; accepted: 1 to 16, 0 to 2",
                              count, combine));
    Plan p;
    p.problem = problem_of(problem);
    for (int32_t n = 0; n < count; ++n)
      p.branches.push_back(branch_of(given(branches + n, "branch"), p.problem));
    p.combine = Combine(combine);
    if (gate) p.gate.view = view_of(*gate, "gate");
    p.validate();
    p.lower();
    *plan = new regard_plan{std::move(p)};
  });
}

int regard_plan_method(const char* spec, const regard_tensors* tensors, int32_t causal, float scale,
                       regard_plan** plan) {
  return guarded([&] {
    handle(plan, "plan")[0] = nullptr;
    const Tensors t = tensors_of(tensors);
    Inputs x;
    x.q = t.q, x.k = t.k, x.v = t.v;
    x.problem = Problem::of_views(t.q, t.k, t.v, scale);
    x.causal = causal != 0;
    *plan = new regard_plan{
        make_plan(parse_method(handle(spec, "spec")), x, Ctx{hardware_threads(), nullptr})};
  });
}

int regard_plan_json(const char* text, regard_plan** plan) {
  return guarded([&] {
    handle(plan, "plan")[0] = nullptr;
    Plan p = plan_from_json(handle(text, "text"));
    p.validate();
    p.lower();
    *plan = new regard_plan{std::move(p)};
  });
}

int regard_plan_density(const regard_plan* plan, double* density) {
  return guarded([&] { *handle(density, "density") = cost(handle(plan, "plan")->plan).density(); });
}

void regard_plan_free(regard_plan* plan) { delete plan; }

int regard_attend(const regard_plan* plan, const regard_tensors* tensors,
                  const regard_options* options, void* stream) {
  return guarded([&] {
    attend(handle(plan, "plan")->plan, tensors_of(tensors), options_of(options, stream));
  });
}

int regard_runner_create(const regard_plan* plan, const regard_tensors* tensors,
                         const regard_options* options, regard_runner** runner) {
  return guarded([&] {
    handle(runner, "runner")[0] = nullptr;
    *runner = new regard_runner{
        Runner(handle(plan, "plan")->plan, tensors_of(tensors), options_of(options, nullptr))};
  });
}

int64_t regard_runner_workspace(const regard_runner* r) { return r ? r->runner.workspace() : 0; }

const char* regard_runner_implementation(const regard_runner* r) {
  return r ? r->runner.implementation().c_str() : "";
}

int regard_runner_run(const regard_runner* runner, const regard_tensors* tensors, void* workspace,
                      int64_t bytes, void* stream) {
  return guarded(
      [&] { handle(runner, "runner")->runner.run(tensors_of(tensors), workspace, bytes, stream); });
}

void regard_runner_free(regard_runner* runner) { delete runner; }
