#include "cli/bench_ggml.h"

#ifdef REGARD_BENCH_GGML
#include <limits>
#include <utility>

#include "core/half.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace regard::cli {
namespace {

ggml_type type_of(DType t) {
  switch (t) {
    case DType::f16:
      return GGML_TYPE_F16;
    case DType::bf16:
      return GGML_TYPE_BF16;
    case DType::q8_0:
      return GGML_TYPE_Q8_0;
    case DType::q4_0:
      return GGML_TYPE_Q4_0;
    case DType::q4_1:
      return GGML_TYPE_Q4_1;
    case DType::q5_0:
      return GGML_TYPE_Q5_0;
    case DType::q5_1:
      return GGML_TYPE_Q5_1;
    case DType::iq4_nl:
      return GGML_TYPE_IQ4_NL;
    default:
      return GGML_TYPE_F32;
  }
}

class Attention : public GgmlAttention {
 public:
  Attention(const TextProblem& x, int threads) : threads_(threads) {
    const Problem& p = x.plan.problem;
    const size_t work = size_t(p.nq * p.nk * 2 + p.batch * p.heads * p.nq * p.dv * 4);
    context_ = ggml_init({work + (64 << 20), nullptr, false});
    ggml_set_no_alloc(context_, true);
    ggml_tensor* q = borrow(x.q.view);
    ggml_tensor* k = borrow(x.k.view);
    ggml_tensor* v = borrow(x.v.view);
    ggml_set_no_alloc(context_, false);
    out_ = ggml_flash_attn_ext(context_, q, k, v, mask(x.plan), p.scale, 0.0f, float(x.softcap));
    ggml_prec_set_acc(out_, GGML_PREC_F32);
    graph_ = ggml_new_graph(context_);
    ggml_build_forward_expand(graph_, out_);
    plan_ = ggml_graph_plan(graph_, threads, nullptr);
    memory_.resize(plan_.work_size);
    plan_.work_data = memory_.data();
  }
  ~Attention() override { ggml_free(context_); }
  void run() override { ggml_graph_compute(graph_, &plan_); }
  // ggml's own order is [channels, heads, tokens, sequences].
  View out() const override {
    View v =
        contiguous(out_->data, DType::f32, {out_->ne[3], out_->ne[2], out_->ne[1], out_->ne[0]});
    std::swap(v.size[1], v.size[2]);
    std::swap(v.stride[1], v.stride[2]);
    return v;
  }

 private:
  ggml_tensor* borrow(const View& v) {
    ggml_tensor* t =
        ggml_new_tensor_4d(context_, type_of(v.dtype), v.size[3], v.size[2], v.size[1], v.size[0]);
    t->data = v.data;
    return t;
  }

  // The plan's pairs as ggml's f16 mask; none where every pair is allowed.
  ggml_tensor* mask(const Plan& plan) {
    const Problem& p = plan.problem;
    const RowRanges r = row_ranges(p, plan.branches[0]);
    const BitMask* bits = plan.branches[0].rule.mask.get();
    const uint16_t ban = f32_to_f16(-std::numeric_limits<float>::infinity());
    bool any = false;
    ggml_tensor* t = ggml_new_tensor_2d(context_, GGML_TYPE_F16, p.nk, p.nq);
    for (int64_t i = 0; i < p.nq; ++i) {
      uint16_t* row = static_cast<uint16_t*>(t->data) + i * p.nk;
      for (int64_t j = 0; j < p.nk; ++j) {
        const bool read =
            ((r.lo[size_t(i)] <= j && j < r.hi[size_t(i)]) || j < r.sink[size_t(i)]) &&
            (!bits || bits->get(0, 0, i, j));
        row[j] = read ? 0 : ban;
        any |= !read;
      }
    }
    return any ? t : nullptr;
  }

  int threads_;
  ggml_context* context_;
  ggml_tensor* out_;
  ggml_cgraph* graph_;
  ggml_cplan plan_;
  std::vector<uint8_t> memory_;
};

}  // namespace

std::unique_ptr<GgmlAttention> GgmlAttention::make(const TextProblem& x, int threads,
                                                   std::string*) {
  return std::make_unique<Attention>(x, threads);
}

}  // namespace regard::cli

#else

namespace regard::cli {

std::unique_ptr<GgmlAttention> GgmlAttention::make(const TextProblem&, int, std::string* why) {
  *why = "built without llama.cpp";
  return nullptr;
}

}  // namespace regard::cli
#endif
