#include "exec/planted.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>

#include "regard/status.h"

namespace regard {
namespace {

constexpr int64_t kSinks = 4;     // StreamingLLM keeps four tokens
constexpr int64_t kSegment = 64;  // tokens a segment of the band, and a block of heavy_tail
constexpr int64_t kStride = 32;   // of the grid
constexpr int64_t kClusters = 16;
constexpr int64_t kHeavy = 8;   // blocks of heavy_tail that the best mask keeps
constexpr double kTail = 1.5;   // mass of the block of rank r is r^-1.5
constexpr double kNoise = 0.5;  // beside a signal of about 1.2

// Counter-based random numbers: the value at (stream, counter) needs no other (the finaliser of
// SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : key_(mix(mix(seed + kGamma) + stream * kGamma)) {}
  uint64_t bits(uint64_t counter) const { return mix(key_ + (counter + 1) * kGamma); }
  // Nearly normal: eight uniforms of 16 bits. Their sum has variance 8 (2^32 - 1) / 12.
  float normal(uint64_t counter) const {
    int64_t sum = 0;
    for (uint64_t half : {bits(2 * counter), bits(2 * counter + 1)})
      for (int i = 0; i < 4; ++i) sum += int64_t(half >> (16 * i) & 0xffff);
    return float((double(sum) - 4 * 65535.0) / 53509.92);
  }

 private:
  static constexpr uint64_t kGamma = 0x9e3779b97f4a7c15u;
  uint64_t key_;
};

// Streams of one seed. Structure and codes belong to a KV head, so a group of queries shares them.
enum Stream : uint64_t { kQ, kK, kV, kCode, kChoice };
Random stream(uint64_t seed, Stream s, int64_t b, int64_t head) {
  return Random(seed, uint64_t(s) << 48 | uint64_t(b) << 24 | uint64_t(head));
}

// Every structure says the same two things: which code a key carries (or none, -1), and which codes
// a query looks for. Codes are random signs, so different ones are orthogonal but for 1 / sqrt(dk).
struct Structure {
  std::function<int64_t(int64_t j)> carries;
  std::function<std::array<int64_t, 2>(int64_t pos)> seeks;  // pos: on the keys' axis; -1: none
  std::function<double(int64_t j)> strength;                 // of the key's code; empty: 1
  std::function<bool(int64_t pos, int64_t j)> keeps;         // empty: pairs whose codes meet
  double noise = kNoise;                                     // of channels of q and k
};

// The logit of a planted pair at scale 1 / sqrt(dk): e^4 times the mass of nk unplanted keys.
double peak(const Problem& p) { return 4 + 0.6931472 * std::bit_width(uint64_t(p.nk)); }

using Make = Structure (*)(const Problem&, const Random& choice);

Structure band(const Problem&, const Random&) {
  return {[](int64_t j) { return j / kSegment; },
          [](int64_t pos) {
            const int64_t s = pos / kSegment;
            return std::array{s, s - 1};
          },
          nullptr, nullptr, kNoise};
}

Structure clusters(const Problem&, const Random& choice) {
  const auto cluster = [choice](uint64_t t) { return int64_t(choice.bits(t) % kClusters); };
  return {[=](int64_t j) { return cluster(2 * uint64_t(j)); },
          [=](int64_t pos) {
            return std::array{cluster(2 * uint64_t(pos) + 1), int64_t(-1)};
          },
          nullptr, nullptr, kNoise};
}

Structure grid(const Problem&, const Random&) {
  return {[](int64_t j) { return j % kStride; },
          [](int64_t pos) {
            return std::array{pos % kStride, int64_t(-1)};
          },
          nullptr, nullptr, kNoise};
}

int64_t one_code(int64_t) { return 0; }
std::array<int64_t, 2> seek_one(int64_t) { return {0, -1}; }

Structure heavy_tail(const Problem& p, const Random& choice) {
  const size_t blocks = size_t((p.nk + kSegment - 1) / kSegment);
  std::vector<std::pair<uint64_t, size_t>> order;
  for (size_t b = 0; b < blocks; ++b) order.emplace_back(choice.bits(b), b);
  std::sort(order.begin(), order.end());
  auto rank = std::make_shared<std::vector<int64_t>>(blocks);
  auto strength = std::make_shared<std::vector<double>>(blocks);
  double log_rank = 0;  // harmonic numbers less one: ln(rank) to within a constant, without libm
  for (size_t r = 0; r < blocks; ++r) {
    if (r > 0) log_rank += 1.0 / double(r + 1);
    (*rank)[order[r].second] = int64_t(r);
    (*strength)[order[r].second] = 1 - kTail * log_rank / peak(p);
  }
  return {one_code, seek_one, [=](int64_t j) { return (*strength)[size_t(j / kSegment)]; },
          [=](int64_t, int64_t j) { return (*rank)[size_t(j / kSegment)] < kHeavy; }, kNoise};
}

Structure needle(const Problem& p, const Random& choice) {
  const int64_t at = int64_t(choice.bits(0) % uint64_t(std::max<int64_t>(1, p.nk / 2)));
  return {[=](int64_t j) { return int64_t(j == at ? 0 : -1); }, seek_one, nullptr, nullptr, kNoise};
}

Structure noise(const Problem&, const Random&) {
  return {[](int64_t) { return int64_t(-1); },
          [](int64_t) {
            return std::array{int64_t(-1), int64_t(-1)};
          },
          nullptr, [](int64_t, int64_t) { return true; }, 1};
}

Structure sinks(const Problem&, const Random&) {
  return {[](int64_t j) { return int64_t(j < kSinks ? 0 : -1); }, seek_one, nullptr, nullptr,
          kNoise};
}

struct Kind {
  PlantedKind kind;
  Make make;  // null: mixed
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {{"band", "keys of the query's own segment of 64 tokens and of the one before"}, band},
      {{"clusters",
        "every query and key belongs to one of 16 clusters at random; a query's pairs "
        "are the keys of its cluster"},
       clusters},
      {{"grid", "keys at distances that are multiples of 32: no tile is better than another"},
       grid},
      {{"heavy_tail",
        "blocks of 64 keys, the same for all queries; the block of rank r has mass "
        "near r^-1.5; the best mask keeps the 8 heaviest"},
       heavy_tail},
      {{"mixed", "KV head h is band, clusters, grid, heavy_tail, needle, noise, sinks for h mod 7"},
       nullptr},
      {{"needle", "one key in the first half of the context"}, needle},
      {{"noise", "nothing: q and k are normal numbers, so attention is spread evenly"}, noise},
      {{"sinks", "the first 4 keys"}, sinks},
  };
  return all;
}

const Kind& find(const std::string& name) {
  std::string names;
  for (const Kind& k : kinds()) {
    if (name == k.kind.name) return k;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", k.kind.name);
  }
  throw Error(fmt::format("planted: unknown '{}'; accepted: {}", name, names));
}

Structure structure(const Kind& kind, const Problem& p, uint64_t seed, int64_t b, int64_t kv) {
  const Random choice = stream(seed, kChoice, b, kv);
  if (kind.make) return kind.make(p, choice);
  std::vector<Make> pure;
  for (const Kind& k : kinds())
    if (k.make) pure.push_back(k.make);
  return pure[size_t(kv) % pure.size()](p, choice);
}

// row += amplitude * the code
void add_code(const Random& codes, int64_t id, double amplitude, float* row, int64_t dk) {
  for (int64_t c = 0; c < dk; ++c) {
    const uint64_t sign = codes.bits(uint64_t(id) << 12 | uint64_t(c) >> 6) >> (c & 63) & 1;
    row[c] += float(sign ? amplitude : -amplitude);
  }
}

void add_normal(const Random& r, double amplitude, int64_t token, float* row, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c)
    row[c] += float(amplitude * double(r.normal(uint64_t(token * channels + c))));
}

float* row_of(const Tensor& t, int64_t b, int64_t h, int64_t i) {
  return reinterpret_cast<float*>(t.view.at(b, h, i));
}

}  // namespace

const std::vector<PlantedKind>& planted_kinds() {
  static const std::vector<PlantedKind> list = [] {
    std::vector<PlantedKind> out;
    for (const Kind& k : kinds()) out.push_back(k.kind);
    return out;
  }();
  return list;
}

Planted planted(const std::string& name, const Problem& p, uint64_t seed) {
  const Kind& kind = find(name);
  p.check();
  Planted out{make_tensor(DType::f32, {p.batch, p.heads, p.nq, p.dk}),
              make_tensor(DType::f32, {p.batch, p.kv_heads, p.nk, p.dk}),
              make_tensor(DType::f32, {p.batch, p.kv_heads, p.nk, p.dv}), nullptr};
  auto all = std::make_shared<std::vector<Structure>>();
  const double signal = std::sqrt(peak(p) / std::sqrt(double(p.dk)));
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t kv = 0; kv < p.kv_heads; ++kv) {
      const Structure& s = all->emplace_back(structure(kind, p, seed, b, kv));
      const Random codes = stream(seed, kCode, b, kv);
      const Random rk = stream(seed, kK, b, kv), rv = stream(seed, kV, b, kv);
      for (int64_t j = 0; j < p.nk; ++j) {
        add_normal(rk, s.noise, j, row_of(out.k, b, kv, j), p.dk);
        add_normal(rv, 1, j, row_of(out.v, b, kv, j), p.dv);
        if (s.carries(j) >= 0)
          add_code(codes, s.carries(j), signal * (s.strength ? s.strength(j) : 1),
                   row_of(out.k, b, kv, j), p.dk);
      }
      for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
        const Random rq = stream(seed, kQ, b, h);
        for (int64_t i = 0; i < p.nq; ++i) {
          add_normal(rq, s.noise, i, row_of(out.q, b, h, i), p.dk);
          for (const int64_t id : s.seeks(i + p.offset))
            if (id >= 0) add_code(codes, id, signal, row_of(out.q, b, h, i), p.dk);
        }
      }
    }
  out.keeps = [all, p](int64_t b, int64_t h, int64_t i, int64_t j) {
    const Structure& s = (*all)[size_t(b * p.kv_heads + h / p.group())];
    if (s.keeps) return s.keeps(i + p.offset, j);
    const int64_t code = s.carries(j);
    const auto wanted = s.seeks(i + p.offset);
    return code >= 0 && (code == wanted[0] || code == wanted[1]);
  };
  return out;
}

}  // namespace regard
