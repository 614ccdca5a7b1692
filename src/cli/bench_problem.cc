#include "cli/bench_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <sstream>

#include "regard/method.h"
#include "regard/run.h"
#include "regard/status.h"
#include "stages/select.h"

namespace regard::cli {
namespace {

using Rng = std::mt19937_64;

struct Words {
  int64_t b = 1, h = 0, kv = 0, nq = 0, nk = 0, dk = 0, dv = 0;
  std::map<std::string, std::string> set;  // "cover" -> "tiles:0.1"
};

[[noreturn]] void bad(const std::string& word) {
  throw Error(fmt::format(
      "problem: cannot read '{}'; accepted: bN hN[:N] nqN nkN dN[:N] causal alibi keybias q= k= v= "
      "kv= out= cover= method= numeric= softcap= bias= norm= mask= pooled= seed=",
      word));
}

template <class T>
T number(const std::string& text, const std::string& word) {
  T x{};
  const char* end = text.data() + text.size();
  const auto [p, e] = std::from_chars(text.data(), end, x);
  if (e != std::errc() || p != end) bad(word);
  return x;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ':');) parts.push_back(part);
  return parts;
}

// "9:3" after `skip` letters: two numbers, the second the first where it is left out.
void pair(const std::string& word, size_t skip, int64_t* a, int64_t* b) {
  const std::vector<std::string> parts = split(word.substr(skip));
  if (parts.empty() || parts.size() > 2) bad(word);
  *a = number<int64_t>(parts[0], word);
  *b = parts.size() > 1 ? number<int64_t>(parts[1], word) : *a;
}

Words read(const std::string& line) {
  Words w;
  std::istringstream in(line);
  for (std::string word; in >> word;) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) {
      w.set[word.substr(0, equals)] = word.substr(equals + 1);
    } else if (word == "causal" || word == "alibi" || word == "keybias") {
      w.set[word] = "";
    } else if (word.starts_with("nq")) {
      w.nq = number<int64_t>(word.substr(2), word);
    } else if (word.starts_with("nk")) {
      w.nk = number<int64_t>(word.substr(2), word);
    } else if (word[0] == 'b') {
      w.b = number<int64_t>(word.substr(1), word);
    } else if (word[0] == 'h') {
      pair(word, 1, &w.h, &w.kv);
    } else if (word[0] == 'd') {
      pair(word, 1, &w.dk, &w.dv);
    } else {
      bad(word);
    }
  }
  return w;
}

// Near enough to normal, variance 1: the sum of four uniform 16-bit numbers. Benchmarks have 10^8
// of them to make.
struct Normal {
  float operator()(Rng& g) const {
    const uint64_t bits = g();
    const auto part = [&](int n) { return float(bits >> (16 * n) & 0xffff); };
    return (part(0) + part(1) + part(2) + part(3)) * (1.7320508f / 65536) - 2 * 1.7320508f;
  }
};

Tensor normal(Rng& g, std::array<int64_t, 4> size, DType t) {
  Tensor out = make_tensor(t, size);
  const Normal n;
  std::vector<float> row(static_cast<size_t>(size[3]));
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c) {
        for (float& x : row) x = n(g);
        write_row(out.view, a, b, c, row.data());
      }
  return out;
}

// Quantised blocks: random levels behind scales that make values of about unit size.
Tensor keys(Rng& g, std::array<int64_t, 4> size, DType t) {
  if (info(t).block == 1) return normal(g, size, t);
  if (size[3] % info(t).block != 0) {
    throw Error(
        fmt::format("problem: head size {} is not whole blocks of {}", size[3], info(t).name));
  }
  Tensor out = make_tensor(t, size);
  const bool wide = t == DType::q8_0 || t == DType::iq4_nl;     // levels to +-127
  const uint16_t scale = wide ? 0x2000 : 0x3000, min = 0xb800;  // 2^-7, 2^-3; -0.5
  const int64_t blocks = out.view.numel() / info(t).block;
  char* p = static_cast<char*>(out.view.data);
  for (int64_t n = 0; n < blocks; ++n, p += info(t).bytes) {
    for (int64_t i = 0; i < info(t).bytes; ++i) p[i] = char(g() >> 13);
    const uint16_t d = uint16_t(scale + g() % 512);
    std::memcpy(p, &d, 2);
    if (t == DType::q4_1 || t == DType::q5_1) std::memcpy(p + 2, &min, 2);
  }
  return out;
}

// Tiles with the density asked for, of those that the causal rule leaves. Random: each by itself;
// the first one stays, so that no row is empty. Banded: those nearest to the row's own.
TileBits keep_set(Rng& g, const Problem& p, int bq, int bk, double density, bool banded) {
  TileBits bits(p.batch, p.heads, (p.nq + bq - 1) / bq, (p.nk + bk - 1) / bk);
  std::bernoulli_distribution coin(density);
  for (int64_t b = 0; b < bits.batch; ++b)
    for (int64_t h = 0; h < bits.heads; ++h)
      for (int64_t r = 0; r < bits.rows; ++r) {
        const int64_t own = std::min(bits.cols - 1, (r * bq + bq - 1 + p.offset) / bk);
        const int64_t width = std::max<int64_t>(1, std::llround(density * double(own + 1)));
        for (int64_t c = 0; c < bits.cols; ++c)
          bits.set(b, h, r, c, banded ? c <= own && c > own - width : coin(g) || c == 0);
      }
  return bits;
}

// "tiles:0.1:64:64:banded", taken apart.
class CoverWords {
 public:
  explicit CoverWords(const std::string& text) : text_(text), part_(split(text)) {
    if (part_.empty()) fail();
  }
  const std::string& kind() const { return part_[0]; }
  size_t size() const { return part_.size(); }
  bool is(size_t i, const char* word) const { return part_.size() > i && part_[i] == word; }
  int64_t whole(size_t i, int64_t otherwise) const {
    return part_.size() > i ? number<int64_t>(part_[i], "cover=" + text_) : otherwise;
  }
  int positive(size_t i, int64_t otherwise) const {
    const int64_t n = whole(i, otherwise);
    if (n < 1 || n > 1 << 20) fail();
    return int(n);
  }
  double real(size_t i) const { return number<double>(part_.at(i), "cover=" + text_); }
  [[noreturn]] void fail() const { bad("cover=" + text_); }

 private:
  std::string text_;
  std::vector<std::string> part_;
};

Plan cover(Rng& g, const Problem& p, const std::string& text) {
  const CoverWords w(text);
  if (w.kind() == "all" && w.size() == 1) return Plan::all(p);
  if (w.kind() == "band" && w.size() >= 3)
    return Plan::band(p, w.whole(1, 0), w.whole(2, 0), w.whole(3, 0));
  if ((w.kind() == "tiles" || w.kind() == "columns") && w.size() >= 2) {
    const bool columns = w.kind() == "columns";
    const int bq = w.positive(2, 64), bk = columns ? 1 : w.positive(3, bq);
    const TileBits keep = keep_set(g, p, bq, bk, w.real(1), !columns && w.is(4, "banded"));
    const Plan tiles = Plan::tiles(p, bq, bk, keep);
    return columns ? Plan::columns(p, *tiles.branches[0].cover.list) : tiles;
  }
  w.fail();
}

// Means of query and key tiles, and the best `keep` key tiles a row: no method of its own.
Plan means_plan(const Inputs& x, int block, int keep, int threads) {
  Ctx ctx;
  ctx.threads = threads;
  const BlockScores s = estimate::pooled_means(ctx, x, block, block);
  const TileBits own = keep::diagonal(x.problem, block, block);
  const Selector how{.cut = Selector::Cut::top_k, .amount = double(keep), .forced = &own};
  return Plan::tiles(x.problem, block, block, select(ctx, s, how)).causal(x.causal).lower();
}

Plan method_plan(const Inputs& x, const Method& method, int threads) {
  Ctx ctx;
  ctx.threads = threads;
  return make_plan(method, x, ctx);
}

std::shared_ptr<BitMask> random_mask(Rng& g, const Problem& p, int64_t keys, double density) {
  auto m = std::make_shared<BitMask>();
  m->nq = p.nq, m->nk = keys;
  m->words.resize(size_t(p.nq * m->words_per_row()));
  std::bernoulli_distribution coin(density);
  for (int64_t i = 0; i < p.nq; ++i)
    for (int64_t j = 0; j < keys; ++j)
      if (coin(g)) m->words[size_t(i * m->words_per_row() + j / 64)] |= 1ull << (j % 64);
  return m;
}

class Builder {
 public:
  explicit Builder(const std::string& line) : w_(read(line)), g_(take("seed", "1", 0)) {
    out_.text = line;
    Problem p;
    p.batch = w_.b, p.heads = w_.h, p.kv_heads = w_.kv, p.nq = w_.nq, p.nk = w_.nk;
    p.dk = w_.dk, p.dv = w_.dv;
    p.scale = 1 / std::sqrt(float(std::max<int64_t>(1, p.dk)));
    p.offset = p.nk - p.nq;
    p.check();
    tensors(p);
    plan(p);
    if (!w_.set.empty()) bad(w_.set.begin()->first + "=" + w_.set.begin()->second);
  }
  TextProblem done() { return std::move(out_); }

 private:
  std::string take(const std::string& key, const std::string& otherwise) {
    const auto it = w_.set.find(key);
    if (it == w_.set.end()) return otherwise;
    const std::string value = it->second;
    w_.set.erase(it);
    return value;
  }
  uint64_t take(const std::string& key, const std::string& otherwise, int) {
    return number<uint64_t>(take(key, otherwise), key);
  }
  bool flag(const std::string& key) { return w_.set.erase(key) > 0; }
  void no_ggml(const char* why) {
    if (out_.why_not_ggml.empty()) out_.why_not_ggml = why;
  }

  void tensors(const Problem& p) {
    const std::string kv = take("kv", "f32");
    const DType kt = parse_dtype(take("k", kv)), vt = parse_dtype(take("v", kv));
    const DType qt = parse_dtype(take("q", "f32")), ot = parse_dtype(take("out", "f32"));
    out_.q = normal(g_, {p.batch, p.heads, p.nq, p.dk}, qt);
    out_.k = keys(g_, {p.batch, p.kv_heads, p.nk, p.dk}, kt);
    out_.v = keys(g_, {p.batch, p.kv_heads, p.nk, p.dv}, vt);
    out_.out = make_tensor(ot, {p.batch, p.heads, p.nq, p.dv});
    out_.lse = make_tensor(DType::f32, {p.batch, p.heads, p.nq, 1});
    if (qt != DType::f32 || ot != DType::f32) no_ggml("q and out must be f32");
  }

  void plan(const Problem& p) {
    const std::string c = take("cover", "all"), method = take("method", "");
    if (!method.empty() || c.starts_with("means")) return estimated_plan(p, c, method);
    if (c.starts_with("tiles") || c.starts_with("columns")) no_ggml("ggml has no sparse cover");
    const int64_t block = int64_t(take("pooled", "1", 0));
    if (block < 1) bad("pooled=" + std::to_string(block));
    Problem source = p;
    source.nk = (p.nk + block - 1) / block;
    Plan plan = cover(g_, source, c);
    plan.problem = p;
    if (block > 1) plan.pooled(int(block)), no_ggml("pooled keys");
    if (flag("causal")) plan.causal();
    const std::string mask = take("mask", "");
    if (!mask.empty())
      plan.mask(random_mask(g_, p, source.nk, number<double>(mask, "mask=" + mask)));
    plan.score(score(p, source.nk));
    plan.norm(norm(p));
    set_numeric(plan);
    plan.lower();
    out_.plan = std::move(plan);
  }

  // A cover that is estimated from the queries and keys.
  void estimated_plan(const Problem& p, const std::string& cover, const std::string& method) {
    no_ggml("ggml has no estimators");
    Inputs x{out_.q.view, out_.k.view, out_.v.view, p, flag("causal"), score(p, p.nk), norm(p)};
    if (!method.empty()) {
      if (cover != "all") bad("cover=" + cover + " beside method=" + method);
      const Method m = parse_method(method);
      out_.make_plan = [x, m](int threads) { return method_plan(x, m, threads); };
    } else {
      const CoverWords w(cover);
      if (w.size() != 3) w.fail();
      const int block = w.positive(1, 0), keep = w.positive(2, 0);
      out_.make_plan = [=](int threads) { return means_plan(x, block, keep, threads); };
    }
    out_.plan = out_.make_plan(hardware_threads());
    set_numeric(out_.plan);
  }

  void set_numeric(Plan& plan) {
    const std::string numeric = take("numeric", "");
    if (numeric.empty()) return;
    const std::vector<std::string>& known = numerics();
    if (std::find(known.begin(), known.end(), numeric) == known.end())
      throw Error(fmt::format("problem: numeric '{}' is unknown; accepted: {}", numeric,
                              fmt::join(known, ", ")));
    plan.numeric(numeric);
  }

  Score score(const Problem& p, int64_t keys) {
    Score s;
    s.softcap = float(number<double>(take("softcap", "0"), "softcap"));
    out_.softcap = s.softcap;
    if (flag("alibi")) {
      no_ggml("ggml's slopes come from its mask");
      for (int64_t h = 0; h < p.heads; ++h)
        s.alibi.push_back(std::exp2(-8.0f * float(h + 1) / float(p.heads)));
    }
    const std::string bias = take("bias", "");
    if (!bias.empty()) {
      no_ggml("dense bias");
      s.bias = normal(g_, {1, p.heads, p.nq, keys}, parse_dtype(bias));
    }
    if (flag("keybias")) {
      no_ggml("key bias");
      s.key_bias = normal(g_, {1, p.kv_heads, 1, keys}, DType::f32);
    }
    return s;
  }

  Norm norm(const Problem& p) {
    Norm n;
    const std::string kind = take("norm", "softmax");
    if (kind == "sink") {
      n.kind = NormKind::softmax_sink;
      for (int64_t h = 0; h < p.heads; ++h) n.sink.push_back(float(h % 4) - 1);
    } else if (kind == "sigmoid") {
      n.kind = NormKind::sigmoid;
      n.shift = -std::log(float(p.nk));
    } else if (kind != "softmax") {
      bad("norm=" + kind);
    }
    if (kind != "softmax") no_ggml("norm");
    return n;
  }

  Words w_;
  Rng g_;
  TextProblem out_;
};

}  // namespace

double TextProblem::kv_bytes() const {
  const auto bytes = [](const View& v) {
    return double(v.numel()) / double(info(v.dtype).block) * double(info(v.dtype).bytes);
  };
  return bytes(k.view) + bytes(v.view);
}

TextProblem parse_problem(const std::string& line) {
  try {
    return Builder(line).done();
  } catch (const Error& e) {
    throw Error(fmt::format("{} (in \"{}\")", e.what(), line));
  }
}

}  // namespace regard::cli
