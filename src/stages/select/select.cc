// The selector. See select.h for its rules.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/parallel.h"
#include "stages/device.h"
#include "stages/matrix.h"
#include "stages/scan.h"
#include "stages/select.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

float rank_of(float s) { return std::isnan(s) ? -kInf : s; }

// Hands out candidates best first; a heap, because most are never asked for.
class BestFirst {
 public:
  explicit BestFirst(std::vector<uint64_t> candidates) : heap_(std::move(candidates)) {
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  bool empty() const { return heap_.empty(); }
  int64_t next() {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const uint64_t best = heap_.back();
    heap_.pop_back();
    return int64_t(best & 0xffffffff);
  }

 private:
  std::vector<uint64_t> heap_;
};

int64_t whole(double amount, Selector::Round round) {
  const double n = round == Selector::Round::floor ? std::floor(amount) : std::ceil(amount);
  return n < 0 ? 0 : n > 9e18 ? std::numeric_limits<int64_t>::max() : int64_t(n);
}

// One competition: scores s[0, n), forced[i] may be empty. Calls keep(i) for every choice.
class Competition {
 public:
  Competition(const float* s, int64_t n, const std::vector<char>& forced, const Selector& how)
      : s_(s), n_(n), forced_(forced), how_(how) {}

  template <class Keep>
  void run(const Keep& keep) const {
    std::vector<uint64_t> candidates;
    double total = 0, sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const bool forced = !forced_.empty() && forced_[i];
      const bool scored = rank_of(s_[i]) != -kInf, first = forced && how_.forced_counts;
      if (scored) total += s_[i];
      if (forced) keep(i);
      if (first) {
        ++count;
        if (scored) sum += s_[i];
      } else if (scored) {
        candidates.push_back(scan::word_of(s_[i], uint32_t(i)));
      }
    }
    const double goal = how_.amount * total;
    int64_t extra = goal > 0 ? how_.extra : 0;
    for (BestFirst best(std::move(candidates)); !best.empty() && count < how_.max_count;) {
      const int64_t i = best.next();
      if (!inside(i, count, sum, goal) && count >= how_.min_count &&
          !(how_.cut == Selector::Cut::coverage && extra-- > 0))
        break;
      keep(i);
      ++count;
      sum += s_[i];
    }
  }

 private:
  bool inside(int64_t i, int64_t count, double sum, double goal) const {
    switch (how_.cut) {
      case Selector::Cut::top_k:
        return count < whole(how_.amount, how_.round);
      case Selector::Cut::coverage:
        return how_.keep_crossing ? sum < goal : sum + double(s_[i]) <= goal;
      case Selector::Cut::threshold:
        return double(s_[i]) > how_.amount;
    }
    return false;
  }

  const float* s_;
  int64_t n_;
  const std::vector<char>& forced_;
  const Selector& how_;
};

bool any_of(const TileBits& bits, int64_t bh, int64_t heads) {
  const uint64_t* const words =
      bits.word(bits.batch == 1 ? 0 : bh / heads, bits.heads == 1 ? 0 : bh % heads, 0);
  return std::any_of(words, words + bits.rows * bits.words_per_row(),
                     [](uint64_t w) { return w != 0; });
}

}  // namespace

BlockScores on_host(BlockScores scores) {
  if (scores.device) {
    const std::vector<float> s = scores.device->fetch();
    scores.s.assign(s.begin(), s.end());
  }
  scores.device.reset();
  return scores;
}

// Forced ones are kept; they compete where they do not count.
void select_row(const float* scores, int64_t cols, const uint64_t* forced, const Selector& how,
                uint64_t* out) {
  static thread_local std::vector<float> s;
  s.assign(scores, scores + cols);
  int64_t count = 0;
  for (int64_t w = 0; forced && w * 64 < cols; ++w) {
    out[w] |= forced[w];
    for (uint64_t bits = how.forced_counts ? forced[w] : 0; bits; bits &= bits - 1) {
      s[w * 64 + std::countr_zero(bits)] = -kInf;
      ++count;
    }
  }
  const int64_t wanted = std::max(whole(how.amount, how.round), how.min_count) - count;
  const int64_t most = how.max_count - count;
  scan::set_bits(s.data(), cols, scan::best(s.data(), cols, std::min(wanted, most)), out);
}

TileBits select(const Ctx& ctx, const BlockScores& scores, const Selector& how) {
  if (scores.device && !device::selects(scores, how)) return select(ctx, on_host(scores), how);
  const StageTimer timer(ctx, "select");
  if (scores.device) return device::select(scores, how);
  const int64_t rows = scores.batch * scores.heads * scores.rows;
  const int64_t together = how.scope == Selector::Scope::row    ? 1
                           : how.scope == Selector::Scope::head ? scores.rows
                                                                : rows;
  TileBits out(scores.batch, scores.heads, scores.rows, scores.cols);
  const TileBits* forced = how.forced;
  if (how.cut == Selector::Cut::top_k && how.scope == Selector::Scope::row && !how.heads) {
    constexpr int64_t kRows = 16;  // a work item
    parallel_for((rows + kRows - 1) / kRows, ctx.threads, [&](int64_t item, int) {
      for (int64_t row = item * kRows; row < std::min((item + 1) * kRows, rows); ++row) {
        const int64_t r = row % scores.rows, h = row / scores.rows % scores.heads;
        const int64_t b = row / scores.rows / scores.heads;
        Selector own = how;
        if (how.amounts) own.amount = (*how.amounts)[row];
        select_row(scores.row(b, h, r), scores.cols,
                   forced ? forced->word(forced->batch == 1 ? 0 : b, forced->heads == 1 ? 0 : h, r)
                          : nullptr,
                   own, out.word(b, h, r));
      }
    });
    return out;
  }
  // Bits of different rows lie in different words, so competitions may write side by side.
  parallel_for(together ? rows / together : 0, ctx.threads, [&](int64_t item, int) {
    const int64_t first = item * together;
    const auto at = [&](int64_t i, auto&& visit) {
      const int64_t row = first + i / scores.cols, c = i % scores.cols;
      visit(row / scores.rows / scores.heads, row / scores.rows % scores.heads, row % scores.rows,
            c);
    };
    if (how.heads && !any_of(*how.heads, first / scores.rows, scores.heads)) return;
    std::vector<char> is_forced(forced ? size_t(together * scores.cols) : 0, 0);
    if (forced)
      for (int64_t i = 0; i < together * scores.cols; ++i)
        at(i, [&](int64_t b, int64_t h, int64_t r, int64_t c) {
          is_forced[i] = forced->get(forced->batch == 1 ? 0 : b, forced->heads == 1 ? 0 : h, r, c);
        });
    Selector own = how;
    if (how.amounts) own.amount = (*how.amounts)[item];
    const Competition competition(&scores.s[first * scores.cols], together * scores.cols, is_forced,
                                  own);
    competition.run([&](int64_t i) {
      at(i, [&](int64_t b, int64_t h, int64_t r, int64_t c) { out.set(b, h, r, c); });
    });
  });
  return out;
}

BlockScores without(BlockScores scores, const TileBits& bits) {
  scores = on_host(std::move(scores));
  for (int64_t b = 0; b < scores.batch; ++b)
    for (int64_t h = 0; h < scores.heads; ++h)
      for (int64_t r = 0; r < scores.rows; ++r)
        for (int64_t c = 0; c < scores.cols; ++c)
          if (bits.get(bits.batch == 1 ? 0 : b, bits.heads == 1 ? 0 : h, r, c))
            scores.row(b, h, r)[c] = -kInf;
  return scores;
}

BlockScores row_softmax(BlockScores scores) {
  if (scores.device) return device::row_softmax(scores);
  for (int64_t row = 0; row < scores.batch * scores.heads * scores.rows; ++row) {
    float* s = &scores.s[row * scores.cols];
    const float top = matrix::max_of(s, scores.cols);
    if (top == -kInf) continue;
    const float sum = matrix::exponentials(s, scores.cols, top);
    for (int64_t c = 0; c < scores.cols; ++c) s[c] /= sum;
  }
  return scores;
}

std::vector<int64_t> top_indices(const float* scores, int64_t n, int64_t k) {
  std::vector<uint32_t> best;
  scan::append(scores, n, scan::best(scores, n, k), &best);
  return {best.begin(), best.end()};
}

}  // namespace regard
