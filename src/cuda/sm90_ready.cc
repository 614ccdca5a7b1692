// cuda_sm90: the Hopper kernels (sm90/params.h) behind a plan.
#include <fmt/format.h>

#include <algorithm>

#include "cuda/branch.h"
#include "cuda/cuda.h"
#include "cuda/device.h"
#include "cuda/lists.h"
#include "cuda/sm90/params.h"
#include "cuda/views.h"
#include "plan/work.h"
#include "regard/status.h"

namespace regard::cuda {
namespace {

sm90::Type type_of(DType t) {
  return t == DType::bf16 ? sm90::Type::bf16 : t == DType::f16 ? sm90::Type::f16 : sm90::Type::f32;
}

sm90::Tensor tensor_of(const View& v) {
  const int64_t item = info(v.dtype).bytes;
  return {v.data, v.stride[0] / item, v.stride[1] / item, v.stride[2] / item};
}

// The lists of a plan that the kernels take: tiles, single keys, or both for the same rows.
struct Lists {
  ListRef tiles, keys;
};
Lists lists_of(const Plan& plan) {
  Lists out;
  for (const Branch& b : plan.branches)
    (b.cover.kind == CoverKind::columns ? out.keys : out.tiles) = b.cover.list;
  return out;
}

// Whether some query of a row does not see one of its single keys, in a plan that is lowered.
bool cut(const ListRef& keys) {
  if (const auto* const placed = dynamic_cast<const PlacedList*>(keys.device()))
    return !placed->uncut();
  return std::any_of(keys->index.begin(), keys->index.end(),
                     [](uint32_t entry) { return entry & IndexList::kBoundary; });
}

std::string keys_refusal(const Plan& plan) {
  const Branch& b = plan.branches[0];
  const ListRef keys = lists_of(plan).keys;
  if (!keys) return "";
  if (b.score.softcap > 0 || !b.score.alibi.empty()) return "a soft-cap or ALiBi on single keys";
  Plan lowered = plan;
  if (!plan.lowered) lowered.lower();
  return cut(lists_of(lowered).keys) ? "single keys that some query of their row does not see" : "";
}

// What the kernels cannot say, before their own refusal.
std::string form_refusal(const Plan& plan, const Tensors& t) {
  const Branch& b = plan.branches[0];
  if (t.pages) return "keys in pages";
  if (b.source.kind != SourceKind::raw) return "pooled keys";
  if (b.rule.mask) return "a bit mask";
  if (b.score.bias || b.score.key_bias) return "a bias tensor";
  if (b.norm.kind == NormKind::sigmoid) return "the sigmoid norm";
  if (b.numeric != "f32") return "arithmetic '" + b.numeric + "', not f32";
  const Problem& p = plan.problem;
  if (p.group() * p.nq <= 16)
    return "left to cuda_sm80, which cuts 16 or fewer query rows a KV head over keys";
  const View& lse = t.out.lse;
  if (lse &&
      (lse.stride[2] != 4 || lse.stride[1] != 4 * p.nq || lse.stride[0] != 4 * p.nq * p.heads))
    return "lse is not contiguous";
  return "";
}

// All but the arrays that live on the device.
sm90::Params params_of(const Plan& plan, const Tensors& t) {
  const Problem& p = plan.problem;
  const Branch& b = plan.branches[0];
  sm90::Params x;
  x.type = type_of(t.q.dtype), x.out_type = type_of(t.out.out.dtype);
  x.q = tensor_of(t.q), x.k = tensor_of(t.k), x.v = tensor_of(t.v), x.out = tensor_of(t.out.out);
  x.lse = static_cast<float*>(t.out.lse.data);
  x.batch = int32_t(p.batch), x.heads = int32_t(p.heads), x.kv_heads = int32_t(p.kv_heads);
  x.nq = p.nq, x.nk = p.nk, x.dk = int32_t(p.dk), x.dv = int32_t(p.dv);
  x.scale = p.scale, x.offset = p.offset;
  const Window w = b.cover.kind == CoverKind::band ? b.cover.band : b.rule.window;
  x.left = w.left, x.right = w.right, x.sink = w.sink;
  if (b.rule.causal) x.right = w.right < 0 ? 0 : std::min<int64_t>(w.right, 0);
  x.softcap = b.score.softcap;
  x.sequences = int32_t(std::max<size_t>(1, p.cu_q.size()) - 1);
  for (size_t s = 0; s + 1 < p.cu_q.size(); ++s)
    x.max_nq = std::max(x.max_nq, p.cu_q[s + 1] - p.cu_q[s]);
  if (b.cover.list) {
    const IndexList& l = b.cover.list.shape();
    x.list_batch = l.batch, x.list_heads = l.heads, x.list_rows = l.rows;
    x.bq = l.bq, x.bk = lists_of(plan).tiles ? l.bk : 64;
  }
  return x;
}

// Addresses for arrays that are not uploaded yet: refusal() looks at their presence alone.
void mark_arrays(const Plan& plan, sm90::Params* x) {
  static const int64_t here = 0;
  const Branch& b = plan.branches[0];
  const auto mark = [](bool present, auto* field) {
    if (present) *field = reinterpret_cast<std::remove_reference_t<decltype(*field)>>(&here);
  };
  mark(!plan.problem.cu_q.empty(), &x->cu_q), mark(!plan.problem.cu_q.empty(), &x->cu_k);
  const Lists lists = lists_of(plan);
  mark(bool(lists.tiles), &x->start), mark(bool(lists.tiles), &x->index);
  mark(bool(lists.keys), &x->key_start), mark(bool(lists.keys), &x->key_index);
  mark(!b.score.alibi.empty(), &x->alibi);
  mark(b.norm.kind == NormKind::softmax_sink, &x->sink_logit);
}

// A list on the device: uploaded, or where the device made it.
class ListThere {
 public:
  ListThere(int device, const ListRef& list, Upload* upload)
      : list_(list), placed_(PlacedList::on(device, list)) {
    if (list_ && !placed_) start_ = upload->put(list_->start), index_ = upload->put(list_->index);
  }
  void find(const Upload& upload, const int64_t** start, const uint32_t** index) const {
    if (!list_) return;
    *start = placed_ ? placed_->start() : upload.at<int64_t>(start_);
    *index = placed_ ? placed_->index() : upload.at<uint32_t>(index_);
  }
  void await(void* stream) const {
    if (placed_) placed_->await(stream);
  }
  const PlacedList* placed() const { return placed_; }

 private:
  ListRef list_;
  const PlacedList* placed_;
  int64_t start_ = 0, index_ = 0;
};

// What a GPU made of these single keys and these very tiles, to be read instead; or null.
const PlacedList::Pieces* pieces_of(const PlacedList* tiles, const PlacedList* keys) {
  const PlacedList::Pieces* const made = tiles && keys ? keys->pieces() : nullptr;
  return made && made->tiles == tiles->bits() && tiles->shape().bk == 64 ? made : nullptr;
}

// Several branches in one launch: tiles and single keys of the same rows.
bool together(const Plan& plan) {
  return plan.branches.size() == 2 && plan.branches[0].cover.kind == CoverKind::tiles &&
         plan.branches[1].cover.kind == CoverKind::columns && fusible(plan);
}

// One launch's own words.
std::string launch_refusal(const Plan& plan, const Tensors& t) {
  if (std::string why = plan_refusal(plan); !why.empty()) return why;
  if (std::string why = form_refusal(plan, t); !why.empty()) return why;
  if (std::string why = keys_refusal(plan); !why.empty()) return why;
  sm90::Params x = params_of(plan, t);
  mark_arrays(plan, &x);
  return sm90::refusal(x);
}

// A branch as a plan of its own, whose rows leave as Partials: in f32, without a sink.
Plan alone(const Plan& plan, size_t n) {
  Plan one = plan;
  one.branches = {plan.branches[n]};
  one.combine = Combine::only;
  one.gate = {};
  if (one.branches[0].norm.kind == NormKind::softmax_sink) one.branches[0].norm = {};
  return one;
}
Tensors as_partials(const Plan& plan, const Tensors& t, float* acc, float* head) {
  const Problem& p = plan.problem;
  Tensors x = t;
  x.out.out = contiguous(acc, DType::f32, {p.batch, p.heads, p.nq, p.dv});
  x.out.lse = contiguous(head, DType::f32, {p.batch, p.heads, p.nq, 1});
  x.out.out.device = x.out.lse.device = Device::cuda;
  return x;
}

class Sm90 : public Ready {
 public:
  Sm90(const Plan& plan, const Tensors& t, bool partial = false)
      : device_(device_of(t.q.data)),
        params_(params_of(plan, t)),
        tiles_(device_, lists_of(plan).tiles, &upload_),
        keys_(device_, lists_of(plan).keys, &upload_) {
    const OnDevice here(device_);
    const Branch& b = plan.branches[0];
    const Problem& p = plan.problem;
    params_.sms = device_info(device_).sms;
    params_.partial = partial;
    const auto narrow = [](const std::vector<int64_t>& x) {
      return std::vector<int32_t>(x.begin(), x.end());
    };
    const int64_t cu_q = upload_.put(narrow(p.cu_q)), cu_k = upload_.put(narrow(p.cu_k));
    const int64_t alibi = upload_.put(b.score.alibi), sink = upload_.put(b.norm.sink);
    counters_.put(&upload_, sm90::kCleared / 4);
    upload_.send();
    if (!p.cu_q.empty())
      params_.cu_q = upload_.at<int32_t>(cu_q), params_.cu_k = upload_.at<int32_t>(cu_k);
    if (!b.score.alibi.empty()) params_.alibi = upload_.at<float>(alibi);
    if (b.norm.kind == NormKind::softmax_sink) params_.sink_logit = upload_.at<float>(sink);
    if (const auto* const made = pieces_of(tiles_.placed(), keys_.placed())) {
      params_.start = made->start, params_.index = made->index;
      params_.key_start = made->key_start, params_.key_index = made->key_index;
      params_.loose = true;
    } else {
      tiles_.find(upload_, &params_.start, &params_.index);
      keys_.find(upload_, &params_.key_start, &params_.key_index);
    }
    bytes_ = int64_t(sm90::workspace(params_));
  }

  int64_t workspace() const override { return bytes_; }

  void run(const Tensors& t, void* workspace, int64_t, void* stream) const override {
    check_run(t, workspace, stream, device_);
    const OnDevice here(device_);
    tiles_.await(stream), keys_.await(stream);
    sm90::Params x = params_;
    x.q.data = t.q.data, x.k.data = t.k.data, x.v.data = t.v.data, x.out.data = t.out.out.data;
    x.lse = static_cast<float*>(t.out.lse.data);
    x.workspace = workspace;
    x.counters = counters_.of(upload_, workspace);
    if (!x.counters)
      check(cudaMemsetAsync(workspace, 0, sm90::kCleared, cudaStream_t(stream)), "clear workspace");
    sm90::forward(x, cudaStream_t(stream));
    check(cudaPeekAtLastError(), "launch the attention kernel");
  }

 private:
  const int device_;
  sm90::Params params_;
  Upload upload_;
  const ListThere tiles_, keys_;
  Counters counters_;
  int64_t bytes_ = 0;
};

// One of several branches.
class Sm90Branch : public BranchRun {
 public:
  Sm90Branch(const Plan& plan, const Tensors& t)
      : plan_(plan), run_(plan, as_partials(plan, t, nullptr, nullptr), true) {}
  int64_t workspace() const override { return run_.workspace(); }
  void run(const Tensors& t, float* acc, float* head, void* workspace,
           void* stream) const override {
    run_.run(as_partials(plan_, t, acc, head), workspace, run_.workspace(), stream);
  }

 private:
  const Plan plan_;
  const Sm90 run_;
};

std::string branch_refusal(const Plan& plan, size_t n, const Tensors& t) {
  const Plan one = alone(plan, n);
  return launch_refusal(one, as_partials(one, t, nullptr, nullptr));
}

std::unique_ptr<BranchRun> sm90_branch(const Plan& plan, size_t n, const Tensors& t) {
  if (!branch_refusal(plan, n, t).empty()) return nullptr;
  return std::make_unique<Sm90Branch>(alone(plan, n), t);
}

}  // namespace

std::string sm90_refusal(const Plan& plan, const Tensors& t) {
  if (std::string why = views_refusal(t); !why.empty()) return why;
  const DeviceInfo& d = device_info(device_of(t.q.data));
  if (d.major != 9) return fmt::format("{} is sm_{}{}, not sm_90", d.name, d.major, d.minor);
  if (plan.branches.size() == 1) return launch_refusal(plan, t);
  if (together(plan) && launch_refusal(plan, t).empty()) return "";
  if (std::string why = sm80_refusal(plan, t); !why.empty()) return why;
  std::string first;
  bool one = true;
  for (size_t n = 0; n < plan.branches.size(); ++n) {
    const std::string why = branch_refusal(plan, n, t);
    if (why.empty()) return "";
    if (n == 0) first = why;
    one &= why == first;
  }
  return one ? first : "none of its branches is accepted; the first: " + first;
}

std::unique_ptr<Ready> sm90_ready(const Plan& plan, const Tensors& t) {
  if (plan.branches.size() == 1 || (together(plan) && launch_refusal(plan, t).empty()))
    return std::make_unique<Sm90>(plan, t);
  return sm80_ready_beside(sm90_branch, plan, t);
}

}  // namespace regard::cuda
