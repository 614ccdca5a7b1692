// Attention as its definition: for every query, every pair that the plan allows, in fp64.
//
// Nothing here is shared with the kernels, nor with plan/ranges.cc: predicates are evaluated pair
// by pair from the meaning stated in plan.h, so that this file can judge them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <vector>

#include "core/parallel.h"
#include "ref/ref.h"
#include "regard/partial.h"

namespace regard::ref {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// One head's keys and values in fp64: as they are, or means over `block` tokens; values mapped.
struct Keys {
  int64_t n, dk, dv;
  std::vector<double> k, v, weight;  // weight: ln(tokens a key stands for)
  std::vector<double> features;      // [n, m] ln phi(k); empty where weights are exponential
  int64_t m = 0;
};

// ln phi(x), by the definitions of WeightKind.
std::vector<double> log_features(const Problem& p, const Weight& weight, const double* x) {
  std::vector<double> out(x, x + p.dk);
  double top = -kInf, sum = 0, squares = 0;
  for (const double e : out) top = std::max(top, e), squares += e * e;
  for (const double e : out) sum += std::exp(e - top);
  switch (weight.kind) {
    case WeightKind::softmax:
      for (double& e : out) e -= top + std::log(sum);
      return out;
    case WeightKind::elu:  // e^x below 0, x + 1 above
      for (double& e : out) e = e > 0 ? std::log1p(e) : e;
      return out;
    case WeightKind::relu:
      for (double& e : out) e = e > 0 ? std::log(e) : std::isnan(e) ? e : -kInf;
      return out;
    default:
      break;
  }
  const View& w = weight.directions.view;
  std::vector<double> direction(size_t(p.dk)), exponents;
  for (int64_t r = 0; r < w.size[2]; ++r) {
    read_row(w, 0, 0, r, direction.data());
    double dot = 0;
    for (int64_t c = 0; c < p.dk; ++c) dot += direction[size_t(c)] * x[c];
    exponents.push_back(std::sqrt(double(p.scale)) * dot - double(p.scale) * squares / 2 -
                        std::log(double(w.size[2])) / 2);
  }
  return exponents;
}

void map_values(const Source& source, int64_t hk, std::vector<double>* v, int64_t dv) {
  const View& map = source.value_map.view;
  if (!map) return;
  std::vector<double> m(size_t((dv + 1) * dv)), out(v->size(), 0.0);
  for (int64_t r = 0; r <= dv; ++r)
    read_row(map, 0, map.size[1] == 1 ? 0 : hk, r, &m[size_t(r * dv)]);
  for (size_t e = 0; e < v->size(); ++e) {
    const size_t row = e / size_t(dv) * size_t(dv), c = e % size_t(dv);
    out[e] = m[size_t(dv * dv) + c];
    for (size_t r = 0; r < size_t(dv); ++r) out[e] += (*v)[row + r] * m[r * size_t(dv) + c];
  }
  *v = std::move(out);
}

Keys load_keys(const Problem& p, const Branch& br, const View& k, const View& v, int64_t b,
               int64_t hk) {
  const Source& source = br.source;
  const bool given = source.kind == SourceKind::given;
  const int64_t block = source.kind == SourceKind::pooled ? source.block : 1;
  Keys out{source_keys(p, br), p.dk, p.dv, {}, {}, {}, {}};
  out.k.assign(size_t(out.n * p.dk), 0);
  out.v.assign(size_t(out.n * p.dv), 0);
  for (int64_t j = 0; given && j < out.n; ++j) {
    read_row(source.keys.view, b, hk, j, &out.k[size_t(j * p.dk)]);
    read_row(source.values.view, b, hk, j, &out.v[size_t(j * p.dv)]);
    out.weight.push_back(0);
  }
  std::vector<double> row(size_t(std::max(p.dk, p.dv)));
  for (int64_t j = 0; !given && j < out.n; ++j) {
    const int64_t first = j * block, last = std::min(first + block, p.nk);
    const double share = 1.0 / double(last - first);
    for (int64_t t = first; t < last; ++t) {
      read_row(k, b, hk, t, row.data());
      for (int64_t c = 0; c < p.dk; ++c) out.k[size_t(j * p.dk + c)] += share * row[size_t(c)];
      read_row(v, b, hk, t, row.data());
      for (int64_t c = 0; c < p.dv; ++c) out.v[size_t(j * p.dv + c)] += share * row[size_t(c)];
    }
    out.weight.push_back(block == 1 ? 0 : std::log(double(last - first)));
  }
  map_values(source, hk, &out.v, p.dv);
  for (int64_t j = 0; br.weight.kind != WeightKind::exponential && j < out.n; ++j) {
    const std::vector<double> f = log_features(p, br.weight, &out.k[size_t(j * p.dk)]);
    out.m = int64_t(f.size());
    out.features.insert(out.features.end(), f.begin(), f.end());
  }
  return out;
}

// The predicate of one query row, written from plan.h.
class Allowed {
 public:
  Allowed(const Problem& p, const Branch& br, int64_t b, int64_t h, int64_t i)
      : p_(p), br_(br), b_(b), h_(h), i_(i) {
    position_ = i + p.offset;
    begin_ = 0, end_ = p.nk;
    for (size_t s = 0; s + 1 < p.cu_q.size(); ++s)
      if (p.cu_q[s] <= i && i < p.cu_q[s + 1]) {
        begin_ = p.cu_k[s], end_ = p.cu_k[s + 1];
        position_ = end_ - 1 - (p.cu_q[s + 1] - 1 - i);
      }
    if (br.order && br.cover.kind != CoverKind::all) find_places();
    if (br.cover.list) mark_list();
  }

  int64_t position() const { return position_; }

  bool operator()(int64_t j) const {
    const int64_t pos = key_position(j);
    if (pos < begin_ || pos >= end_) return false;
    if (br_.rule.causal && pos > position_) return false;
    if (!inside(br_.rule.window, pos, position_)) return false;
    if (br_.cover.kind == CoverKind::band) {
      const bool here = br_.order ? inside(br_.cover.band, key_place(j), place_ + p_.offset)
                                  : inside(br_.cover.band, pos, position_);
      if (!here) return false;
    }
    if (br_.cover.list && !listed_[size_t(key_place(j))]) return false;
    return !br_.rule.mask || br_.rule.mask->get(b_, h_, i_, j);
  }

  int64_t key_position(int64_t j) const {
    if (br_.source.kind == SourceKind::raw) return j;
    if (br_.source.kind == SourceKind::given) return j * br_.source.stride + br_.source.block - 1;
    return std::min((j + 1) * br_.source.block, p_.nk) - 1;
  }

 private:
  static bool inside(const Window& w, int64_t key, int64_t query) {
    if (w.right >= 0 && key > query + w.right) return false;
    return w.left < 0 || key >= query - w.left || key < w.sink;
  }

  int64_t key_place(int64_t j) const { return key_place_.empty() ? j : key_place_[size_t(j)]; }

  // Where the query and every key stand under the branch's order.
  void find_places() {
    place_ = i_;
    if (const Permutation* o = br_.order.queries.get()) {
      const uint32_t* token = o->row(b_, h_, p_.heads);
      place_ = std::find(token, token + p_.nq, uint32_t(i_)) - token;
    }
    if (const Permutation* o = br_.order.keys.get()) {
      const uint32_t* token = o->row(b_, h_, p_.heads);
      key_place_.resize(size_t(o->n));
      for (int64_t n = 0; n < o->n; ++n) key_place_[token[n]] = n;
    }
  }

  void mark_list() {
    const IndexList& l = *br_.cover.list;
    const int64_t keys = source_keys(p_, br_);
    listed_.assign(size_t(keys), 0);
    const int64_t id = l.row_id(b_, h_, (br_.order ? place_ : i_) / l.bq, p_.heads);
    for (int64_t e = l.start[size_t(id)]; e < l.start[size_t(id) + 1]; ++e) {
      const int64_t col = l.index[size_t(e)] & ~IndexList::kBoundary;
      for (int64_t j = col * l.bk; j < std::min(keys, (col + 1) * l.bk); ++j)
        listed_[size_t(j)] = 1;
    }
  }

  const Problem& p_;
  const Branch& br_;
  int64_t b_, h_, i_, position_, begin_, end_, place_ = 0;
  std::vector<int64_t> key_place_;
  std::vector<char> listed_;
};

double logit(const Problem& p, const Branch& br, const Keys& keys, const double* q, int64_t b,
             int64_t h, int64_t i, int64_t j, int64_t distance) {
  double dot = 0;
  for (int64_t c = 0; c < p.dk; ++c) dot += q[c] * keys.k[size_t(j * p.dk + c)];
  const Score& s = br.score;
  double x = double(p.scale) * dot;
  if (s.softcap > 0) x = s.softcap * std::tanh(x / s.softcap);
  if (!s.alibi.empty()) x -= double(s.alibi[size_t(h)]) * double(std::abs(distance));
  if (const View& v = s.bias.view; v) {
    View one = v;
    one.data = v.at(v.size[0] == 1 ? 0 : b, v.size[1] == 1 ? 0 : h, i) + j * v.stride[3];
    one.size = {1, 1, 1, 1};
    double bias;
    read_row(one, 0, 0, 0, &bias);
    // A slope of 0 does not lift a ban: -inf stays -inf.
    const double slope = s.bias_scale.empty() ? 1 : s.bias_scale[size_t(h)];
    x += bias == -kInf ? bias : slope * bias;
  }
  if (const View& v = s.key_bias.view; v) {
    const int64_t hk = v.size[1] == 1 ? 0 : h / p.group();
    x += reinterpret_cast<const float*>(v.at(v.size[0] == 1 ? 0 : b, hk, 0))[j];
  }
  return x + keys.weight[size_t(j)];
}

// ln(phi(q) . phi(k)), from their logarithms.
double log_product(const double* q, const double* k, int64_t m) {
  double top = -kInf, sum = 0;
  for (int64_t r = 0; r < m; ++r) {
    if (std::isnan(q[r] + k[r])) return q[r] + k[r];
    top = std::max(top, q[r] + k[r]);
  }
  if (std::isinf(top)) return top;
  for (int64_t r = 0; r < m; ++r) sum += std::exp(q[r] + k[r] - top);
  return top + std::log(sum);
}

// Weights of blocks of 64 keys whose greatest logit lies more than `skip` below the greatest so far
// do not reach the values.
std::vector<char> skipped(const std::vector<double>& s, double skip) {
  std::vector<char> out(s.size(), 0);
  double so_far = -kInf;
  for (size_t first = 0; first < s.size(); first += 64) {
    const size_t last = std::min(first + 64, s.size());
    const double top = *std::max_element(&s[first], &s[0] + last);
    so_far = std::max(so_far, top);
    std::fill(&out[first], &out[0] + last, top < so_far - skip);
  }
  return out;
}

// A branch's Partial for one query row. Sigmoid: max 0, sum and acc plain sums, so that merging is
// addition. Probabilities of the row, unnormalised, go to `weights` where asked for.
PartialHead<double> row_partial(const Problem& p, const Branch& br, const Keys& keys,
                                const double* q, int64_t b, int64_t h, int64_t i, double* acc,
                                std::vector<double>* weights) {
  const Allowed allowed(p, br, b, h, i);
  std::vector<double> s(size_t(keys.n), -kInf);
  PartialHead<double> out;
  bool nan = false;
  std::vector<double> features;
  if (keys.m > 0) features = log_features(p, br.weight, q);
  for (int64_t j = 0; j < keys.n; ++j) {
    if (!allowed(j)) continue;
    const int64_t distance = allowed.position() - allowed.key_position(j);
    s[size_t(j)] = keys.m > 0
                       ? log_product(features.data(), &keys.features[size_t(j * keys.m)], keys.m)
                       : logit(p, br, keys, q, b, h, i, j, distance);
    nan |= std::isnan(s[size_t(j)]);
    out.max = std::max(out.max, s[size_t(j)]);
  }
  if (nan) out.max = std::numeric_limits<double>::quiet_NaN();
  const bool sigmoid = br.norm.kind == NormKind::sigmoid;
  if (sigmoid && out.max > -kInf) out.max = 0;
  std::fill(acc, acc + p.dv, 0.0);
  const std::vector<char> skip =
      br.value_skip > 0 ? skipped(s, br.value_skip) : std::vector<char>(s.size(), 0);
  for (int64_t j = 0; j < keys.n; ++j) {
    double& x = s[size_t(j)];
    if (x == -kInf) {
      x = 0;
      continue;
    }
    x = sigmoid        ? 1 / (1 + std::exp(-(x + br.norm.shift)))
        : x == out.max ? 1
                       : std::exp(x - out.max);
    out.sum += x;
    if (skip[size_t(j)]) continue;
    for (int64_t c = 0; c < p.dv; ++c) acc[c] += x * keys.v[size_t(j * p.dv + c)];
  }
  if (weights) *weights = std::move(s);
  return out;
}

// Divides, with the sink logit as one more key without a value. Returns lse; acc becomes the
// output.
double finish(PartialHead<double> part, const Norm& norm, int64_t h, double* acc, int64_t dv) {
  if (norm.kind == NormKind::sigmoid) return lse(part);
  if (norm.kind == NormKind::softmax_sink && norm.sink[size_t(h)] > -kInf) {
    const PartialHead<double> sink{norm.sink[size_t(h)], 1};
    const std::vector<double> none(size_t(dv), 0.0);
    merge(part, acc, sink, none.data(), dv);
  }
  if (part.sum == 0) {
    std::fill(acc, acc + dv, 0.0);
    return -kInf;
  }
  for (int64_t c = 0; c < dv; ++c) acc[c] /= part.sum;
  return lse(part);
}

class Runner {
 public:
  Runner(const Plan& plan, const View& q, const View& k, const View& v, const Out& out)
      : plan_(plan), p_(plan.problem), q_(q), k_(k), v_(v), out_(out) {
    if (out.column_mass) mass_.assign(size_t(p_.batch * p_.heads * p_.nk), 0.0);
  }

  void run(int threads) {
    for (int64_t b = 0; b < p_.batch; ++b)
      for (int64_t hk = 0; hk < p_.kv_heads; ++hk) {
        std::vector<Keys> keys;
        for (const Branch& br : plan_.branches) keys.push_back(load_keys(p_, br, k_, v_, b, hk));
        const int64_t rows = p_.group() * p_.nq;
        parallel_for(rows, threads,
                     [&](int64_t n, int) { row(keys, b, hk * p_.group() + n / p_.nq, n % p_.nq); });
      }
    write_mass();
  }

 private:
  void row(const std::vector<Keys>& keys, int64_t b, int64_t h, int64_t i) {
    std::vector<double> q(size_t(p_.dk)), acc(size_t(p_.dv), 0.0), part_acc(size_t(p_.dv));
    read_row(q_, b, h, i, q.data());
    const bool gated = plan_.combine == Combine::gated;
    PartialHead<double> total;
    std::vector<double> sum(size_t(p_.dv), 0.0), weights;
    for (size_t n = 0; n < plan_.branches.size(); ++n) {
      const Branch& br = plan_.branches[n];
      PartialHead<double> part = row_partial(p_, br, keys[n], q.data(), b, h, i, part_acc.data(),
                                             out_.column_mass ? &weights : nullptr);
      if (!gated) {
        merge(total, acc.data(), part, part_acc.data(), p_.dv);
        continue;
      }
      const double branch_lse = finish(part, br.norm, h, part_acc.data(), p_.dv);
      const auto gate = reinterpret_cast<const float*>(plan_.gate.view.at(b, h, i))[n];
      for (int64_t c = 0; c < p_.dv; ++c) sum[size_t(c)] += gate * part_acc[size_t(c)];
      merge(total, acc.data(), {branch_lse, branch_lse > -kInf ? 1.0 : 0.0}, acc.data(), 0);
    }
    const double row_lse =
        gated ? lse(total) : finish(total, plan_.branches[0].norm, h, acc.data(), p_.dv);
    write_row(out_.out, b, h, i, gated ? sum.data() : acc.data());
    if (out_.lse) write_row(out_.lse, b, h, i, &row_lse);
    if (out_.column_mass) add_mass(b, h, weights, total.max, row_lse);
  }

  void add_mass(int64_t b, int64_t h, const std::vector<double>& weights, double max, double lse) {
    if (lse == -kInf) return;
    const double sigmoid = plan_.branches[0].norm.kind == NormKind::sigmoid;
    const double share = sigmoid ? 1 : std::exp(max - lse);
    const std::lock_guard lock(mutex_);
    for (int64_t j = 0; j < p_.nk; ++j)
      mass_[size_t((b * p_.heads + h) * p_.nk + j)] += share * weights[size_t(j)];
  }

  void write_mass() {
    for (int64_t b = 0; out_.column_mass && b < p_.batch; ++b)
      for (int64_t h = 0; h < p_.heads; ++h)
        write_row(out_.column_mass, b, h, 0, &mass_[size_t((b * p_.heads + h) * p_.nk)]);
  }

  const Plan& plan_;
  const Problem& p_;
  const View &q_, &k_, &v_;
  const Out& out_;
  std::vector<double> mass_;
  std::mutex mutex_;
};

}  // namespace

void attend(const Plan& plan, const View& q, const View& k, const View& v, const Out& out,
            int threads) {
  Runner(plan, q, k, v, out).run(threads);
}

}  // namespace regard::ref
