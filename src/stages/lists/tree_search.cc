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
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"

namespace regard::lists {
namespace {

constexpr float kEmpty = -std::numeric_limits<float>::infinity();

struct Keys {
  const float* rows;  // [nk, depth]
  int64_t depth, end;
};

// The greatest product of any query with any key of each block.
std::vector<float> worth(const std::vector<float>& queries, const Keys& keys, int64_t block,
                         const std::vector<int64_t>& blocks) {
  const int64_t depth = keys.depth, rows = int64_t(queries.size()) / depth;
  std::vector<float> out(blocks.size(), kEmpty);
  std::vector<float> gathered(size_t(matrix::kPanel * depth)), dots(size_t(rows * matrix::kPanel));
  std::vector<matrix::Line> panel(static_cast<size_t>(depth));
  std::vector<size_t> owner;  // of the gathered keys
  const auto flush = [&] {
    matrix::pack_panel(gathered.data(), int64_t(owner.size()), depth, panel.data());
    matrix::multiply(queries.data(), rows, depth, panel.data(), dots.data(), matrix::kPanel);
    for (int64_t i = 0; i < rows; ++i)
      for (size_t l = 0; l < owner.size(); ++l)
        out[owner[l]] = std::max(out[owner[l]], dots[i * matrix::kPanel + l]);
    owner.clear();
  };
  for (size_t b = 0; b < blocks.size(); ++b)
    for (int64_t j = blocks[b] * block; j < std::min((blocks[b] + 1) * block, keys.end); ++j) {
      std::copy_n(keys.rows + j * depth, depth, &gathered[owner.size() * depth]);
      owner.push_back(b);
      if (owner.size() == size_t(matrix::kPanel)) flush();
    }
  if (!owner.empty()) flush();
  return out;
}

// Key blocks that the search over [0, candidates) ends with, ascending.
std::vector<int64_t> search(const std::vector<float>& queries, const Keys& keys, int64_t candidates,
                            const TreeSearch& how) {
  const int64_t blocks = (candidates + how.block_k - 1) / how.block_k;
  const int64_t wanted = std::max<int64_t>(1, how.mask_k / how.block_k);
  Ranges nodes;
  for (int64_t i = 0; i < wanted; ++i)
    nodes.push_back({blocks * i / wanted, blocks * (i + 1) / wanted});
  for (double width = double(blocks) / double(wanted); width > 1; width /= 2) {
    Ranges children;
    for (const Range& n : nodes) {
      const int64_t middle = n.begin + (n.end - n.begin) / 2;
      if (n.begin < middle) children.push_back({n.begin, middle});
      if (middle < n.end) children.push_back({middle, n.end});
    }
    std::vector<int64_t> first;
    for (const Range& c : children) first.push_back(c.begin);
    const std::vector<float> scores = worth(queries, keys, how.block_k, first);
    std::vector<int64_t> order(children.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    order.resize(std::min(order.size(), size_t(wanted)));
    std::sort(order.begin(), order.end());
    nodes.clear();
    for (const int64_t n : order) nodes.push_back(children[n]);
  }
  std::vector<int64_t> out;
  for (const Range& n : nodes) out.push_back(n.begin);
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
  std::vector<float> keys(size_t(p.nk * p.dk));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      matrix::load_rows(x.k, b, kv, 0, p.nk, keys.data());
      parallel_for(p.group() * rows, ctx.threads, [&](int64_t item, int) {
        const int64_t h = kv * p.group() + item / rows, r = item % rows;
        const int64_t i0 = r * how.block_q, i1 = std::min(i0 + how.block_q, p.nq);
        const int64_t end = std::clamp<int64_t>(p.offset + i1, 0, p.nk);
        const int64_t candidates = std::max<int64_t>(0, end - how.window);
        std::vector<char> read(size_t(end), 0);
        std::fill(read.begin() + candidates, read.end(), 1);
        std::fill_n(read.begin(), std::min(how.sink, end), 1);
        if (candidates <= how.mask_k) {
          std::fill(read.begin(), read.end(), 1);
        } else {
          std::vector<float> queries;
          for (int64_t i = std::min(i0 + 1, i1 - 1); i < i1; i += 2) {
            queries.resize(queries.size() + size_t(p.dk));
            matrix::load_rows(x.q, b, h, i, 1, &queries[queries.size() - p.dk]);
          }
          for (const int64_t n : search(queries, {keys.data(), p.dk, end}, candidates, how))
            for (int64_t j = n * how.block_k; j < std::min((n + 1) * how.block_k, end); ++j)
              read[j] = 1;
        }
        for (int64_t j = 0; j < end; ++j)
          if (read[j]) kept[(b * p.heads + h) * rows + r].push_back(uint32_t(j));
      });
    }
  return Plan::columns(p, keys_of(p, p.batch, p.heads, int(how.block_q), kept));
}

}  // namespace regard::lists
