#include "cli/run_watch.h"

#include <algorithm>
#include <chrono>
#include <memory>

namespace regard::cli {
namespace {

std::shared_ptr<const IndexList> head_list(const IndexList& all, int64_t head, int64_t heads) {
  auto one = std::make_shared<IndexList>();
  one->batch = all.batch;
  one->heads = 1;
  one->rows = all.rows;
  one->cols = all.cols;
  one->bq = all.bq;
  one->bk = all.bk;
  one->start.push_back(0);
  for (int64_t b = 0; b < all.batch; ++b) {
    const int64_t first = all.row_id(b, head, 0, heads);
    for (int64_t r = first; r < first + all.rows; ++r) {
      one->index.insert(one->index.end(), all.index.begin() + all.start[r],
                        all.index.begin() + all.start[r + 1]);
      one->start.push_back(int64_t(one->index.size()));
    }
  }
  return one;
}

std::shared_ptr<const BitMask> head_mask(const BitMask& all, int64_t head) {
  auto one = std::make_shared<BitMask>();
  one->batch = all.batch;
  one->nq = all.nq;
  one->nk = all.nk;
  for (int64_t b = 0; b < all.batch; ++b) {
    const uint64_t* first = all.row(b, head, 0);
    one->words.insert(one->words.end(), first, first + all.nq * all.words_per_row());
  }
  return one;
}

}  // namespace

Plan head_plan(const Plan& plan, int64_t head) {
  Plan one;
  one.problem = plan.problem;
  one.problem.heads = one.problem.kv_heads = 1;
  one.combine = plan.branches.size() > 1 ? Combine::same : Combine::only;
  one.lowered = plan.lowered;
  for (const Branch& b : plan.branches) {
    Branch mine;
    mine.source = b.source;
    mine.cover = b.cover;
    mine.rule = b.rule;
    if (b.cover.list) mine.cover.list = head_list(*b.cover.list, head, plan.problem.heads);
    if (b.rule.mask && b.rule.mask->heads > 1) mine.rule.mask = head_mask(*b.rule.mask, head);
    one.branches.push_back(std::move(mine));
  }
  return one;
}

bool shared_by_heads(const Plan& plan) {
  return std::all_of(plan.branches.begin(), plan.branches.end(), [](const Branch& b) {
    return (!b.cover.list || b.cover.list->heads == 1) && (!b.rule.mask || b.rule.mask->heads == 1);
  });
}

void Watch::begin(bool count_pairs) {
  *this = Watch();
  count_pairs_ = count_pairs;
}

void Watch::add(const ggml::Node& node) {
  attention_ += node.seconds;
  plan_ += node.plan_seconds;
  ++calls_;
  if (!node.exact_reason.empty()) ++exact_calls_[node.exact_reason];
  if (!count_pairs_ || !node.plan) return;
  const auto begin = std::chrono::steady_clock::now();
  count(node);
  own_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Watch::count(const ggml::Node& node) {
  const int64_t heads = node.plan->problem.heads;
  const int64_t layer = std::max(0, node.layer);  // unnamed caches are counted with layer 0
  pairs_.heads = std::max(pairs_.heads, heads);
  if (layer >= pairs_.layers) {
    pairs_.layers = layer + 1;
    pairs_.kept.resize(pairs_.layers * pairs_.heads);
    pairs_.causal.resize(pairs_.layers * pairs_.heads);
  }
  const bool shared = shared_by_heads(*node.plan);
  Cost c;
  for (int64_t h = 0; h < heads; ++h) {
    if (h == 0 || !shared) c = cost(head_plan(*node.plan, h));
    pairs_.kept[layer * pairs_.heads + h] += c.pairs;
    pairs_.causal[layer * pairs_.heads + h] += c.causal_pairs;
    pairs_.tile_pairs += c.tile_pairs;
  }
}

}  // namespace regard::cli
