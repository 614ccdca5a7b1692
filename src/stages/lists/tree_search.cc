// HiP (arXiv 2406.09827), algorithm 1. For queries [i, i + block_q) whose last one sees keys [0,
// E):
//  - the last `window` keys and the first `sink` are read; the others are candidates, all of them
//    where there are no more than mask_k;
//  - otherwise, in key blocks of block_k: mask_k / block_k nodes share the candidates evenly; every
//    node splits in two (the left half is the smaller one), a child is worth the greatest q.k of
//    its FIRST key block with the queries of odd index, and the best half of the children lives on,
//    until nodes are single blocks.
// No scale, no softmax, no causal test inside the block. Ties go to the lower key.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"
#include "stages/scan.h"

namespace regard::lists {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

// Keys of one head, read where they are wanted: a search looks at few of them.
struct Keys {
  const View& view;
  int64_t b, kv, end;
};

// The greatest product of any query with any key of a block, for the blocks that `blocks` names.
// No product is a number, or all are -inf: the lowest number.
class Worth {
 public:
  Worth(const std::vector<float>& queries, const Keys& keys, int64_t block)
      : queries_(queries), keys_(keys), block_(block) {}

  void of(const std::vector<int64_t>& blocks, std::vector<float>* out) {
    const int64_t depth = keys_.view.size[3];
    out->assign(blocks.size(), kLowest);
    gathered_.resize(size_t(matrix::kPanel * depth)), owner_.clear();
    for (size_t n = 0; n < blocks.size(); ++n) {
      const int64_t last = std::min((blocks[n] + 1) * block_, keys_.end);
      for (int64_t j = blocks[n] * block_; j < last;) {
        const int64_t room = matrix::kPanel - int64_t(owner_.size());
        const int64_t count = std::min(room, last - j);
        matrix::load_rows(keys_.view, keys_.b, keys_.kv, j, count,
                          &gathered_[owner_.size() * depth]);
        owner_.insert(owner_.end(), size_t(count), n);
        j += count;
        if (count == room) flush(out);
      }
    }
    if (!owner_.empty()) flush(out);
  }

 private:
  void flush(std::vector<float>* out) {
    const int64_t depth = keys_.view.size[3], rows = int64_t(queries_.size()) / depth;
    panel_.resize(size_t(depth)), dots_.resize(size_t(rows * matrix::kPanel));
    matrix::pack_panel(gathered_.data(), int64_t(owner_.size()), depth, panel_.data());
    matrix::multiply(queries_.data(), rows, depth, panel_.data(), dots_.data(), matrix::kPanel);
    std::array<float, matrix::kPanel> most;
    most.fill(kLowest);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t l = 0; l < matrix::kPanel; ++l)
        most[l] = std::max(most[l], dots_[i * matrix::kPanel + l]);
    for (size_t l = 0; l < owner_.size(); ++l)
      (*out)[owner_[l]] = std::max((*out)[owner_[l]], most[l]);
    owner_.clear();
  }

  const std::vector<float>& queries_;
  const Keys keys_;
  const int64_t block_;
  std::vector<float> gathered_, dots_;
  std::vector<matrix::Line> panel_;
  std::vector<size_t> owner_;  // of the gathered keys
};

struct Node {
  int64_t begin, end;
  float worth;  // of its first block
  bool known;
};

// Key blocks that the search over [0, candidates) ends with, ascending.
std::vector<int64_t> search(const std::vector<float>& queries, const Keys& keys, int64_t candidates,
                            const TreeSearch& how) {
  const int64_t blocks = (candidates + how.block_k - 1) / how.block_k;
  const int64_t wanted = std::max<int64_t>(1, how.mask_k / how.block_k);
  Worth worth(queries, keys, how.block_k);
  std::vector<Node> nodes, children;
  std::vector<int64_t> first;  // of nodes whose worth is not known
  std::vector<float> found, scores;
  std::vector<uint32_t> best;
  for (int64_t i = 0; i < wanted; ++i)
    nodes.push_back({blocks * i / wanted, blocks * (i + 1) / wanted, 0, false});
  for (double width = double(blocks) / double(wanted); width > 1; width /= 2) {
    children.clear(), first.clear(), scores.clear(), best.clear();
    for (const Node& n : nodes) {
      // The left half has its parent's first block, and so its worth.
      const int64_t middle = n.begin + (n.end - n.begin) / 2;
      if (n.begin < middle) children.push_back({n.begin, middle, n.worth, n.known});
      if (middle < n.end)
        children.push_back({middle, n.end, n.worth, n.known && middle == n.begin});
    }
    for (const Node& c : children)
      if (!c.known) first.push_back(c.begin);
    worth.of(first, &found);
    auto next = found.begin();
    for (Node& c : children) {
      if (!c.known) c.worth = *next++;
      c.known = true;
      scores.push_back(c.worth);
    }
    const int64_t count = int64_t(scores.size());
    scan::append(scores.data(), count, scan::best(scores.data(), count, wanted), &best);
    nodes.clear();
    for (const uint32_t n : best) nodes.push_back(children[n]);
  }
  std::vector<int64_t> out;
  for (const Node& n : nodes) out.push_back(n.begin);
  return out;
}

}  // namespace

Plan tree_search(const Ctx& ctx, const Inputs& x, const TreeSearch& how) {
  const StageTimer timer(ctx, "lists.tree_search");
  const Problem& p = x.problem;
  need_one_sequence(p, "tree search");
  if (how.block_k < 1 || how.block_q < 1 || how.mask_k < how.block_k)
    throw Error(fmt::format("tree search: mask_k {} of blocks of {}; accepted: at least one block",
                            how.mask_k, how.block_k));
  const int64_t rows = (p.nq + how.block_q - 1) / how.block_q;
  std::vector<std::vector<uint32_t>> kept(size_t(p.batch * p.heads * rows));
  parallel_for(p.batch * p.heads * rows, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / rows / p.heads, h = item / rows % p.heads, r = item % rows;
    const int64_t i0 = r * how.block_q, i1 = std::min(i0 + how.block_q, p.nq);
    const int64_t end = std::clamp<int64_t>(p.offset + i1, 0, p.nk);
    const int64_t candidates = std::max<int64_t>(0, end - how.window);
    std::vector<uint32_t>& out = kept[item];
    int64_t read = 0;
    const auto add = [&](int64_t first, int64_t last) {
      for (read = std::max(read, first); read < std::min(last, end); ++read)
        out.push_back(uint32_t(read));
    };
    if (candidates <= how.mask_k) return add(0, end);
    std::vector<float> queries;
    for (int64_t i = std::min(i0 + 1, i1 - 1); i < i1; i += 2) {
      queries.resize(queries.size() + size_t(p.dk));
      matrix::load_rows(x.q, b, h, i, 1, &queries[queries.size() - p.dk]);
    }
    out.reserve(size_t(std::min(how.sink, end) + how.mask_k + end - candidates + how.block_k));
    add(0, how.sink);
    for (const int64_t n : search(queries, {x.k, b, h / p.group(), end}, candidates, how))
      add(n * how.block_k, (n + 1) * how.block_k);
    add(candidates, end);
  });
  return Plan::columns(p, keys_of(p, p.batch, p.heads, int(how.block_q), kept));
}

}  // namespace regard::lists
