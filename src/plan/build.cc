// Builders and setters of Plan.
#include <fmt/format.h>

#include "plan/on_device.h"
#include "regard/plan.h"
#include "regard/status.h"

namespace regard {
namespace {

Plan one_branch(const Problem& p) {
  Plan plan;
  plan.problem = p;
  plan.branches.resize(1);
  return plan;
}

IndexList shape_of_bits(const TileBits& keep, int bq, int bk) {
  IndexList list;
  list.batch = keep.batch, list.heads = keep.heads;
  list.rows = keep.rows, list.cols = keep.cols;
  list.bq = bq, list.bk = bk;
  return list;
}

IndexList list_of_bits(const TileBits& keep, int bq, int bk) {
  IndexList list = shape_of_bits(keep, bq, bk);
  const int64_t rows = keep.batch * keep.heads * keep.rows, words = keep.words_per_row();
  list.start.reserve(size_t(rows + 1));
  list.start.push_back(0);
  const uint64_t* row = rows * words > 0 ? keep.word(0, 0, 0) : nullptr;
  for (int64_t r = 0; r < rows; ++r, row += words) {
    for (int64_t w = 0; w < words; ++w)
      for (uint64_t bits = row[w]; bits; bits &= bits - 1)
        list.index.push_back(uint32_t(w * 64 + __builtin_ctzll(bits)));
    list.start.push_back(int64_t(list.index.size()));
  }
  return list;
}

// The list of bits on a GPU, before it is lowered: nothing but the bits.
class ListOfBits : public DeviceList {
 public:
  ListOfBits(const TileBits& bits, int bq, int bk)
      : DeviceList(shape_of_bits(bits, bq, bk)), bits_(bits), bq_(bq), bk_(bk) {}
  std::shared_ptr<const DeviceList> lowered(const Problem& p, const Branch& b) const override {
    return bits_.device()->lowered(bits_, bq_, bk_, p, b);
  }

 protected:
  IndexList fetch() const override { return list_of_bits(bits_, bq_, bk_); }

 private:
  const TileBits bits_;
  const int bq_, bk_;
};

Plan join(std::vector<Plan> plans, Combine how, const char* name) {
  if (plans.empty()) throw Error(fmt::format("plan {}: needs at least one plan", name));
  Plan out;
  out.problem = plans[0].problem;
  out.combine = how;
  for (Plan& p : plans) {
    if (p.combine != Combine::only)
      throw Error(fmt::format("plan {}: joins plans of one branch each", name));
    if (p.problem.str() != out.problem.str())
      throw Error(fmt::format("plan {}: problems differ: {} and {}", name, out.problem.str(),
                              p.problem.str()));
    out.branches.push_back(std::move(p.branches[0]));
  }
  return out;
}

}  // namespace

Plan Plan::all(const Problem& p) { return one_branch(p); }

Plan Plan::band(const Problem& p, int64_t left, int64_t right, int64_t sink) {
  Plan plan = one_branch(p);
  plan.branches[0].cover.kind = CoverKind::band;
  plan.branches[0].cover.band = {left, right, sink};
  return plan;
}

Plan Plan::tiles(const Problem& p, int bq, int bk, const TileBits& keep) {
  Plan plan = one_branch(p);
  Cover& cover = plan.branches[0].cover;
  cover.kind = CoverKind::tiles;
  if (keep.device()) {
    cover.list = ListRef(std::make_shared<const ListOfBits>(keep, bq, bk));
  } else {
    cover.list = std::make_shared<const IndexList>(list_of_bits(keep, bq, bk));
  }
  return plan;
}

const std::vector<std::string>& numerics() {
  static const std::vector<std::string> names = {"f32", "bf16", "int8", "int16"};
  return names;
}

Plan Plan::columns(const Problem& p, IndexList list) {
  return columns(p, std::make_shared<const IndexList>(std::move(list)));
}

Plan Plan::columns(const Problem& p, ListRef list) {
  Plan plan = one_branch(p);
  plan.branches[0].cover.kind = CoverKind::columns;
  plan.branches[0].cover.list = std::move(list);
  return plan;
}

Plan Plan::same(std::vector<Plan> disjoint) {
  return join(std::move(disjoint), Combine::same, "same");
}

Plan Plan::gated(std::vector<Plan> plans, Tensor gate) {
  Plan out = join(std::move(plans), Combine::gated, "gated");
  out.gate = std::move(gate);
  return out;
}

Plan& Plan::causal(bool on) {
  for (Branch& b : branches) b.rule.causal = on;
  lowered = false;
  return *this;
}
Plan& Plan::window(Window w) {
  for (Branch& b : branches) b.rule.window = w;
  lowered = false;
  return *this;
}
Plan& Plan::mask(std::shared_ptr<const BitMask> m) {
  for (Branch& b : branches) b.rule.mask = m;
  lowered = false;
  return *this;
}
Plan& Plan::score(Score s) {
  for (Branch& b : branches) b.score = s;
  return *this;
}
Plan& Plan::norm(Norm n) {
  for (Branch& b : branches) b.norm = n;
  return *this;
}
Plan& Plan::weight(Weight w) {
  for (Branch& b : branches) b.weight = w;
  return *this;
}
Plan& Plan::value_map(Tensor map) {
  for (Branch& b : branches) b.source.value_map = map;
  return *this;
}
Plan& Plan::value_skip(float logits) {
  for (Branch& b : branches) b.value_skip = logits;
  return *this;
}
Plan& Plan::numeric(const std::string& name) {
  for (Branch& b : branches) b.numeric = name;
  return *this;
}
Plan& Plan::order(Order o) {
  for (Branch& b : branches) b.order = o;
  lowered = false;
  return *this;
}
Plan& Plan::given(int block, int stride, Tensor keys, Tensor values) {
  for (Branch& b : branches) b.source = {SourceKind::given, block, stride, keys, values, {}};
  return *this;
}
Plan& Plan::pooled(int block) {
  for (Branch& b : branches) b.source.kind = SourceKind::pooled, b.source.block = block;
  lowered = false;
  return *this;
}

}  // namespace regard
