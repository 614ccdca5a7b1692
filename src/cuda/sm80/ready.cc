// cuda_sm80: a plan uploaded, and its launches.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "cuda/branch.h"
#include "cuda/cuda.h"
#include "cuda/device.h"
#include "cuda/sm80/features.h"
#include "cuda/sm80/instance.h"
#include "cuda/sm80/items.h"
#include "cuda/sm80/pair_tiles.h"
#include "cuda/sm80/source.h"
#include "cuda/sm80/states.h"
#include "cuda/views.h"
#include "regard/status.h"

namespace regard::cuda {
namespace {

using namespace sm80;  // NOLINT

constexpr float kLog2e = 1.4426950408889634f;

Type type_of(DType t) {
  return t == DType::f16 ? Type::f16 : t == DType::bf16 ? Type::bf16 : Type::f32;
}

// The first instance of the type and of this kind or any that fits, and that `usable` agrees to;
// `rows` together prefer the smallest tile that holds them.
const Instance* find_instance(Type type, int64_t dk, int64_t dv, int64_t rows, Kind kind,
                              bool (*usable)(const Instance&)) {
  const Instance* found = nullptr;
  for (const Instance& i : instances()) {
    if (i.type != type || i.dk < dk || i.dv < dv) continue;
    if ((i.kind == Kind::skips) != (kind == Kind::skips)) continue;
    if (i.kind == Kind::wide && kind != Kind::wide) continue;
    // Those of a kind are fast where every channel is there.
    const bool exact = i.dk == dk && i.dv == dv;
    if (i.decodes() && (i.kind != kind || !exact || !usable(i))) continue;
    if (found && (i.dk != found->dk || i.dv != found->dv)) break;
    found = &i;
    if (i.rows >= rows) break;
  }
  return found;
}

Kind kind_of(const Problem& p, const Branch& b, bool pages, int sms) {
  if (b.value_skip > 0) return Kind::skips;
  const Score& s = b.score;
  const bool plain = s.softcap <= 0 && s.alibi.empty() && !s.bias && !s.key_bias && p.scale > 0;
  if (!plain || b.source.kind != SourceKind::raw || b.norm.kind == NormKind::sigmoid ||
      b.rule.mask || b.order)
    return Kind::any;
  const int64_t rows = p.nq * p.group();  // of a KV head
  if (rows <= 16) return b.cover.list ? Kind::lists : Kind::ranges;
  // Fewer tiles of 128 rows than multiprocessors would be cut over keys, and the merge of so many
  // rows costs more than is won.
  const bool many = p.batch * p.kv_heads * ((rows + 127) / 128) > sms;
  return many && !b.cover.list && !pages ? Kind::wide : Kind::any;
}

Rows rows_of(const View& v) {
  return {static_cast<char*>(v.data), v.stride[0], v.stride[1], v.stride[2]};
}

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// A tensor of the plan on the device: uploaded, or where the caller keeps it.
struct Extra {
  int64_t offset = -1;
  Rows rows;
  int64_t last = 0;

  void put(const View& v, Upload* upload) {
    if (!v) return;
    if (v.device == Device::cuda) {
      rows = rows_of(v);
      if (v.size[0] == 1) rows.batch = 0;
      if (v.size[1] == 1) rows.head = 0;
      last = v.stride[3];
      return;
    }
    int64_t stride[4];
    offset = upload->put_view(v, stride);
    rows = {nullptr, stride[0], stride[1], stride[2]};
    last = stride[3];
  }
  Rows get(const Upload& upload) const {
    Rows r = rows;
    if (offset >= 0) r.data = const_cast<char*>(upload.at<char>(offset));
    return r;
  }
};

// One branch: its launches and where its scratch lies in the workspace.
struct BranchWork {
  const Instance* instance = nullptr;
  Params params;
  int64_t items = 0, slots = 0;
  int most = 1;
  int64_t acc_at = 0, head_at = 0;  // bytes into the workspace
  bool overlap = false;
  std::unique_ptr<BranchRun> other;  // instead of all but the Partials' place and the sink
  int64_t other_at = 0;
  std::optional<SourceRows> source;
  std::optional<FeatureRows> features;
  std::unique_ptr<States> states;
  int features_of = -1;  // the branch that has made the same features

  // Offsets into the upload.
  int64_t items_at = -1, lo = -1, hi = -1, sink = -1, index = -1, alibi = -1, position = -1,
          bias_scale = -1, mask = -1, sink_logit = -1, rows_at = -1, query_order = -1,
          key_order = -1, tile_pairs = -1;
  Extra bias, key_bias;
};

std::vector<float> scaled(const std::vector<float>& x, float by) {
  std::vector<float> y(x);
  for (float& v : y) v *= by;
  return y;
}

std::vector<int32_t> positions(const Problem& p) {
  std::vector<int32_t> position(static_cast<size_t>(p.nq));
  for (int64_t i = 0; i < p.nq; ++i) position[size_t(i)] = int32_t(i + p.offset);
  for (size_t s = 0; s + 1 < p.cu_q.size(); ++s)  // the last query meets the last key
    for (int64_t i = p.cu_q[s]; i < p.cu_q[s + 1]; ++i)
      position[size_t(i)] = int32_t(i - p.cu_q[s + 1] + p.cu_k[s + 1]);
  return position;
}

class Sm80 : public Ready {
 public:
  Sm80(const Plan& plan, const Tensors& t, BranchMaker others)
      : p_(plan.problem),
        device_(device_of(t.q.data)),
        overlap_(device_info(device_).major >= 9),
        combine_(plan.combine) {
    const OnDevice here(device_);
    type_ = type_of(t.q.dtype);
    for (size_t n = 0; n < plan.branches.size(); ++n)
      if (!others || !add_other(others(plan, n, t), plan.branches[n])) add(plan, n, t);
    gate_.put(plan.gate.view, &upload_);
    upload_.send();
    for (BranchWork& w : branches_) resolve(&w);
  }

  int64_t workspace() const override { return bytes_; }

  void run(const Tensors& t, void* workspace, int64_t, void* stream) const override {
    check_run(t, workspace, stream, device_);
    const OnDevice here(device_);
    char* const scratch = static_cast<char*>(workspace);
    for (const BranchWork& w : branches_) {
      float* const acc = reinterpret_cast<float*>(scratch + w.acc_at);
      float* const head = reinterpret_cast<float*>(scratch + w.head_at);
      if (w.other) {
        w.other->run(t, acc, head, scratch + w.other_at, stream);
        continue;
      }
      Params p = w.params;
      p.q = rows_of(t.q), p.k = rows_of(t.k), p.v = rows_of(t.v);
      p.out = rows_of(t.out.out), p.lse = rows_of(t.out.lse);
      p.pages = static_cast<const int32_t*>(t.pages.data);
      p.k_page = p.k.batch, p.v_page = p.v.batch;
      p.pages_row = t.pages.stride[0] / 4;
      w.source->run(upload_, scratch, stream, &p);
      if (w.features) w.features->run(upload_, scratch, stream, &p);
      if (w.features_of >= 0) branches_[size_t(w.features_of)].features->tell(scratch, &p);
      if (w.states) w.states->run(upload_, scratch, stream, &p);
      p.part_acc = acc, p.part_head = head;
      if (split_ > 0) p.done = counters(scratch, stream);
      w.instance->launch(p, w.items, w.overlap, stream);
      check(cudaPeekAtLastError(), "launch the attention kernel");
    }
    if (combine_ != Combine::only) merge(t, scratch, stream);
  }

 private:
  bool add_other(std::unique_ptr<BranchRun> other, const Branch& br) {
    if (!other) return false;
    BranchWork& w = branches_.emplace_back();
    const int64_t rows = p_.batch * p_.heads * p_.nq;
    w.acc_at = reserve(rows * p_.dv * 4), w.head_at = reserve(rows * 8);
    w.other_at = reserve(other->workspace());
    w.other = std::move(other);
    add_norm(&w, br.norm);
    return true;
  }

  void add(const Plan& plan, size_t n, const Tensors& t) {
    Branch br = plan.branches[n];
    BranchWork& w = branches_.emplace_back();
    const int64_t keys = source_keys(p_, br);
    const bool of_features = br.weight.kind != WeightKind::exponential;
    if (of_features && br.cover.list && br.cover.list->bk == 1) {
      PairTiles tiles = pair_tiles(p_, *br.cover.list);
      if (tiles.list) {
        br.cover.kind = CoverKind::tiles, br.cover.list = ListRef(tiles.list);
        w.tile_pairs = upload_.put(tiles.pairs);
      }
    }
    if (!of_features)
      w.instance = find_instance(type_, p_.dk, p_.dv, rows_together(p_, br),
                                 kind_of(p_, br, bool(t.pages), device_info(device_).sms),
                                 [](const Instance& i) { return i.prepare() > 0; });
    if (!w.instance) w.instance = &pairs_instance(type_, p_.dv);
    const int per_sm = w.instance->prepare();
    if (per_sm == 0)
      throw Error(fmt::format("cuda_sm80: device {} cannot run {}", device_, w.instance->name));
    const RowRanges ranges = row_ranges(p_, br);
    const auto place = [this](int64_t bytes) { return reserve(bytes); };
    if (of_features) w.states = States::make(p_, br, ranges, t.q.dtype, &upload_, place);
    const Items items = make_items(p_, br, ranges, keys, w.instance->rows, w.instance->keys,
                                   per_sm * int64_t(device_info(device_).sms),
                                   combine_ != Combine::only, w.states ? w.states->tile_rows() : 0);
    w.items = int64_t(items.items.size()), w.slots = items.slots, w.most = items.most;
    // A start hidden under the end of the kernel ahead saves a microsecond, but above half a
    // gigabyte of keys and values it cost up to one per cent.
    int64_t read = 0;
    for (const Item& i : items.items) read += (i.end - i.begin) * int64_t(w.instance->keys);
    w.overlap = overlap_ && combine_ == Combine::only && w.instance->decodes() &&
                read * (p_.dk + p_.dv) * 2 <= int64_t(1) << 29;
    w.items_at = upload_.put(items.items);
    if (!items.rows.empty()) w.rows_at = upload_.put(items.rows);
    if (combine_ == Combine::only && items.split > 0) {
      split_ = items.split;
      counters_.put(&upload_, split_);
      done_at_ = reserve(split_ * 4);
    }
    w.lo = upload_.put(ranges.lo), w.hi = upload_.put(ranges.hi);
    w.sink = upload_.put(ranges.sink);
    w.acc_at = reserve(w.slots * p_.dv * 4), w.head_at = reserve(w.slots * 8);
    Params& p = w.params;
    p.dk = int32_t(p_.dk), p.dv = int32_t(p_.dv), p.group = int32_t(p_.group());
    p.nk = int32_t(keys);
    p.out_type = type_of(t.out.out.dtype);
    if (br.cover.list) {
      w.index = upload_.put(br.cover.list->index);
      p.bk = br.cover.list->bk;
      add_order(&w, br.order);
    }
    w.source.emplace(p_, br, t, &upload_, place, &p);
    if (of_features && !shares_features(plan, n)) w.features.emplace(p_, br, t, &upload_, place);
    p.kv_heads = int32_t(p_.kv_heads), p.nq = int32_t(p_.nq);
    p.value_skip = br.value_skip * kLog2e;
    add_score(&w, br);
    add_norm(&w, br.norm);
    if (const BitMask* m = br.rule.mask.get()) {
      w.mask = upload_.put(m->words);
      p.mask_row = m->words_per_row();
      p.mask_head = m->heads == 1 ? 0 : m->nq * p.mask_row;
      p.mask_batch = m->batch == 1 ? 0 : m->heads * m->nq * p.mask_row;
    }
  }

  // Whether an earlier branch makes these features.
  bool shares_features(const Plan& plan, size_t n) {
    const Weight& own = plan.branches[n].weight;
    for (size_t e = 0; e < n; ++e) {
      const Weight& w = plan.branches[e].weight;
      if (!branches_[e].features || w.kind != own.kind ||
          w.directions.view.data != own.directions.view.data)
        continue;
      branches_[n].features_of = int(e);
      return true;
    }
    return false;
  }

  // Places are of lists: dense rows and ranges mean tokens.
  void add_order(BranchWork* w, const Order& order) {
    Params& p = w->params;
    if (const Permutation* o = order.queries.get()) {
      w->query_order = upload_.put(o->token);
      p.query_batch = o->batch == 1 ? 0 : o->heads * o->n, p.query_head = o->heads == 1 ? 0 : o->n;
    }
    if (const Permutation* o = order.keys.get()) {
      w->key_order = upload_.put(o->token);
      p.key_batch = o->batch == 1 ? 0 : o->heads * o->n, p.key_head = o->n;
      p.key_heads = int32_t(p_.heads / o->heads);
    }
  }

  void add_score(BranchWork* w, const Branch& br) {
    const Score& s = br.score;
    Params& p = w->params;
    const bool pooled = br.source.kind == SourceKind::pooled;
    p.plain =
        s.softcap <= 0 && s.alibi.empty() && !s.bias && !s.key_bias && !pooled && p_.scale > 0;
    p.c = p.plain ? p_.scale * kLog2e : 1;
    p.factor = s.softcap > 0 ? p_.scale / s.softcap : p_.scale * kLog2e;
    p.cap = s.softcap * kLog2e;
    if (!s.alibi.empty()) {
      w->alibi = upload_.put(scaled(s.alibi, kLog2e));
      w->position = upload_.put(positions(p_));
    }
    w->bias.put(s.bias.view, &upload_);
    p.bias_type = type_of(s.bias.view.dtype);
    if (!s.bias_scale.empty()) w->bias_scale = upload_.put(s.bias_scale);
    w->key_bias.put(s.key_bias.view, &upload_);
  }

  void add_norm(BranchWork* w, const Norm& norm) {
    w->params.sigmoid = norm.kind == NormKind::sigmoid;
    w->params.shift = norm.shift * kLog2e;
    if (norm.kind == NormKind::softmax_sink) w->sink_logit = upload_.put(scaled(norm.sink, kLog2e));
  }

  // The counters of pieces, zero: ours, or the workspace's own.
  uint32_t* counters(char* workspace, void* stream) const {
    if (uint32_t* known = counters_.of(upload_, workspace)) return known;
    uint32_t* const own = reinterpret_cast<uint32_t*>(workspace + done_at_);
    check(cudaMemsetAsync(own, 0, size_t(split_) * 4, cudaStream_t(stream)), "clear workspace");
    return own;
  }

  int64_t reserve(int64_t bytes) {
    const int64_t at = bytes_;
    bytes_ += aligned(bytes);
    return at;
  }

  // Offsets become addresses.
  void resolve(BranchWork* w) const {
    const auto to = [&](auto** field, int64_t offset) {
      if (offset >= 0) *field = upload_.at<std::remove_cvref_t<decltype(**field)>>(offset);
    };
    Params& p = w->params;
    to(&p.items, w->items_at), to(&p.lo, w->lo), to(&p.hi, w->hi), to(&p.sink, w->sink);
    to(&p.index, w->index), to(&p.alibi, w->alibi), to(&p.position, w->position);
    to(&p.bias_scale, w->bias_scale), to(&p.mask, w->mask), to(&p.sink_logit, w->sink_logit);
    to(&p.tile_pairs, w->tile_pairs), to(&p.query_order, w->query_order),
        to(&p.key_order, w->key_order);
    p.bias = w->bias.get(upload_), p.bias_key = w->bias.last;
    p.key_bias = w->key_bias.get(upload_), p.key_bias.token = w->key_bias.last;
  }

  void merge(const Tensors& t, char* scratch, void* stream) const {
    MergeParams m;
    m.branches = int32_t(branches_.size()), m.heads = int32_t(p_.heads), m.nq = int32_t(p_.nq);
    m.dv = int32_t(p_.dv), m.rows = p_.batch * p_.heads * p_.nq;
    int most = 1;
    for (size_t n = 0; n < branches_.size(); ++n) {
      const BranchWork& w = branches_[n];
      m.slots[n] = w.other ? nullptr : upload_.at<RowSlots>(w.rows_at);
      m.acc[n] = reinterpret_cast<const float*>(scratch + w.acc_at);
      m.head[n] = reinterpret_cast<const float*>(scratch + w.head_at);
      m.sink_logit[n] = w.params.sink_logit, m.sigmoid[n] = w.params.sigmoid;
      most = std::max(most, w.most);
    }
    if (combine_ == Combine::gated) m.gate = gate_.get(upload_);
    m.out = rows_of(t.out.out), m.lse = rows_of(t.out.lse);
    m.out_type = type_of(t.out.out.dtype);
    launch_merge(m, most, overlap_, stream);
    check(cudaPeekAtLastError(), "launch the merge kernel");
  }

  const Problem p_;
  const int device_;
  const bool overlap_;
  const Combine combine_;
  Type type_ = Type::bf16;
  std::vector<BranchWork> branches_;
  Upload upload_;
  Extra gate_;
  int64_t bytes_ = 0;
  int64_t split_ = 0, done_at_ = 0;  // tiles of rows in pieces; counters in the workspace
  Counters counters_;
};

}  // namespace

// Keys that are gathered one by one are found by 32 bits that count 16 bytes.
static bool far_apart(const View& x, bool pages) {
  const int64_t axis = pages ? 0 : 2;
  return x.size[axis] * x.stride[axis] > int64_t(1) << 36;
}

std::string sm80_refusal(const Plan& plan, const Tensors& t) {
  if (std::string why = views_refusal(t); !why.empty()) return why;
  const Problem& p = plan.problem;
  if (p.dk % 8 != 0 || p.dv % 8 != 0 ||
      !find_instance(type_of(t.q.dtype), p.dk, p.dv, 1, Kind::any, nullptr))
    return fmt::format("head sizes {}:{}; accepted: multiples of 8 up to 576:512", p.dk, p.dv);
  for (const Branch& b : plan.branches) {
    if (b.value_skip > 0 && b.cover.list && b.cover.list.shape().bk % 64 != 0)
      return fmt::format("skipping values of blocks of 64 keys in tiles of {}",
                         b.cover.list.shape().bk);
    if ((t.pages || b.cover.list) &&
        (far_apart(t.k, bool(t.pages)) || far_apart(t.v, bool(t.pages))))
      return "lists or pages of keys over more than 64 GiB";
    if (b.numeric != "f32" && b.numeric != info(t.q.dtype).name)
      return "arithmetic '" + b.numeric + "', not " + info(t.q.dtype).name;
  }
  return "";
}

std::unique_ptr<Ready> sm80_ready(const Plan& plan, const Tensors& t) {
  return std::make_unique<Sm80>(plan, t, nullptr);
}

std::unique_ptr<Ready> sm80_ready_beside(BranchMaker others, const Plan& plan, const Tensors& t) {
  return std::make_unique<Sm80>(plan, t, others);
}

}  // namespace regard::cuda
