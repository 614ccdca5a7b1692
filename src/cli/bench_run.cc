#include "cli/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "cli/bench_ggml.h"
#include "cli/bench_problem.h"
#include "ref/ref.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

constexpr int kMostRounds = 200;
constexpr double kSampleSeconds = 2e-3;  // shorter runs are repeated until a sample takes this long
constexpr int64_t kDecodeQueries = 8;    // up to here bandwidth is what bounds
constexpr int64_t kJudgedQueries = 16;   // the last ones, for the error

double now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(t).count();
}

Measured summarise(std::vector<double> x) {
  if (x.empty()) return {};
  std::sort(x.begin(), x.end());
  const auto at = [&](double share) {
    return x[size_t(std::lround(share * double(x.size() - 1)))];
  };
  return {at(0.5), at(0.5) > 0 ? (at(0.75) - at(0.25)) / at(0.5) : 0};
}

// Samples of one thing, round by round.
using Samples = std::vector<double>;
Measured ratio(const Samples& a, const Samples& b) {
  Samples r;
  for (size_t n = 0; n < std::min(a.size(), b.size()); ++n) r.push_back(a[n] / b[n]);
  return summarise(std::move(r));
}

// What a problem is to ggml and the peers, who know no numeric.
std::string rivals_problem(const std::string& problem) {
  const size_t at = problem.find(" numeric=");
  if (at == std::string::npos) return problem;
  const size_t end = problem.find(' ', at + 1);
  return problem.substr(0, at) + (end == std::string::npos ? "" : problem.substr(end));
}

class Member;

// One thing that a round runs: `run` does it once and returns its seconds.
struct Timed {
  std::function<double()> run;
  Samples seconds;
  int calls = 0;  // a sample; 0: not known yet

  void sample() {
    if (calls == 0) {  // warm-up; a short run is timed once it is warm
      double one = run();
      if (one < 10 * kSampleSeconds) one = run();
      calls = std::clamp(int(kSampleSeconds / std::max(one, 1e-7)), 1, 10'000);
      return;
    }
    double sum = 0;
    for (int n = 0; n < calls; ++n) sum += run();
    seconds.push_back(sum / calls);
  }
};

std::function<double()> clocked(std::function<void()> work) {
  return [work] {
    const double begin = now();
    work();
    return now() - begin;
  };
}

// Root mean square of the difference, as a share of the reference's.
double rms_error(const View& got, const View& want) {
  double error = 0, size = 0;
  std::vector<double> a(size_t(got.size[3])), b(a.size());
  for (int64_t n = 0; n < got.size[0]; ++n)
    for (int64_t h = 0; h < got.size[1]; ++h)
      for (int64_t i = 0; i < got.size[2]; ++i) {
        read_row(got, n, h, i, a.data());
        read_row(want, n, h, i, b.data());
        for (size_t c = 0; c < a.size(); ++c)
          error += (a[c] - b[c]) * (a[c] - b[c]), size += b[c] * b[c];
      }
  return std::sqrt(error / size);
}

// One problem at one thread count, and its rivals.
class Member {
 public:
  Member(const ProblemLine& line, const std::shared_ptr<TextProblem>& x, int threads)
      : line(line), x_(x), threads_(threads) {
    options_.impl = "cpu";
    options_.threads = threads;
    out_.out = x->out.view;
    out_.lse = x->lse.view;
    if (x->make_plan) {
      ours.run = clocked([this] { x_->make_plan(threads_); });
      return;
    }
    for (const Choice& c : explain(x->plan, x->q.view, x->k.view, x->v.view, out_, options_))
      if (c.name == "cpu") refused = c.refusal;
    ours.run = clocked([this] { run(); });
  }
  Member(const Member&) = delete;

  void add_ggml(bool wanted) {
    std::string why = x_->why_not_ggml;
    if (!wanted || line.alone) why = "not asked for";
    if (why.empty()) ggml_ = GgmlAttention::make(*x_, threads_, &why);
    if (ggml_)
      rivals["ggml"].run = clocked([this] { ggml_->run(); });
    else
      why_not["ggml"] = why;
  }

  void add_peer(Peer& peer) {
    if (!peer.absent().empty()) {
      why_not[peer.name()] = peer.absent();
      return;
    }
    for (const std::string& precision : peer.precisions()) {
      const std::string name = peer.name() + "_" + precision;
      std::string why;
      const int id = peer.prepare(*x_, threads_, precision, &why);
      if (id < 0)
        why_not[name] = why;
      else
        rivals[name].run = [&peer, id] { return peer.run(id); };
    }
  }

  // Errors over the last queries, of a plan that is ranges alone.
  void judge(BenchRow& row) {
    const Plan& plan = x_->plan;
    const Problem& p = plan.problem;
    const Branch& b = plan.branches.at(0);
    const bool ranges = plan.branches.size() == 1 && !b.cover.list && !b.rule.mask &&
                        !b.score.bias && b.source.kind == SourceKind::raw && p.cu_q.empty() &&
                        !x_->make_plan;
    if (!ranges) return;
    const int64_t n = std::min(p.nq, kJudgedQueries), first = p.nq - n;
    Plan last = plan;
    last.problem.nq = n;
    last.problem.offset = p.offset + first;
    for (Branch& each : last.branches) each.numeric = "f32";
    const Tensor want = make_tensor(DType::f64, {p.batch, p.heads, n, p.dv});
    Out out;
    out.out = want.view;
    ref::attend(last, slice_tokens(x_->q.view, first, n), x_->k.view, x_->v.view, out, threads_);
    run();
    row.error = rms_error(slice_tokens(x_->out.view, first, n), want.view);
    GgmlAttention* ggml = same_rivals ? same_rivals->ggml_.get() : ggml_.get();
    if (!ggml) return;
    ggml->run();
    row.ggml_error = rms_error(slice_tokens(ggml->out(), first, n), want.view);
    row.measures["accuracy"] = {row.ggml_error / row.error, 0};
  }

  const TextProblem& x() const { return *x_; }
  int threads() const { return threads_; }

  ProblemLine line;
  std::string refused;
  Timed ours;
  std::map<std::string, Timed> rivals;
  std::map<std::string, std::string> why_not;
  const Member* same_rivals = nullptr;  // an earlier member has the same ones
  const Member* base = nullptr;
  const Member* one = nullptr;  // at the first thread count
  Samples fma, read;            // peaks of the rounds

 private:
  void run() { attend(x_->plan, x_->q.view, x_->k.view, x_->v.view, out_, options_); }

  std::shared_ptr<TextProblem> x_;
  int threads_;
  RunOptions options_;
  Out out_;
  std::unique_ptr<GgmlAttention> ggml_;
};

using Members = std::vector<std::unique_ptr<Member>>;

// Bytes of the keys and values that a decode step reads; for a prefill, of all of them.
double kv_read(const TextProblem& x, double pairs) {
  const Problem& p = x.plan.problem;
  const double share = pairs / double(p.batch * p.heads * p.nq * p.nk);
  return x.kv_bytes() * (p.nq == 1 ? share : 1);
}

double bytes_touched(const TextProblem& x) {
  const auto bytes = [](const View& v) {
    return double(v.numel()) / double(info(v.dtype).block) * double(info(v.dtype).bytes);
  };
  return bytes(x.q.view) + bytes(x.out.view) + x.kv_bytes();
}

void add_best(const Member& rivals, const Samples& ours, const std::string& peer, BenchRow& row) {
  for (const auto& [name, timed] : rivals.rivals) {
    if (!name.starts_with(peer + "_") || timed.seconds.empty()) continue;
    const Measured r = ratio(timed.seconds, ours);
    if (name == peer + "_f32") row.measures[name] = r;
    const auto best = row.measures.find(peer);
    if (best == row.measures.end() || r.value < best->second.value) row.measures[peer] = r;
  }
}

void add_measures(const Member& m, double pairs, BenchRow& row) {
  const Samples& ours = m.ours.seconds;
  if (!row.plan) {
    const auto share = [&](double amount, const Samples& peak) {
      Samples s;
      for (size_t n = 0; n < peak.size(); ++n) s.push_back(amount / ours[n] / peak[n]);
      return summarise(std::move(s));
    };
    row.measures["peak"] = share(row.gflops * row.seconds.value, m.fma);
    if (!m.read.empty()) row.measures["read"] = share(row.kv_gbs * row.seconds.value, m.read);
  }
  const Member& rivals = m.same_rivals ? *m.same_rivals : m;
  for (const auto& [name, timed] : rivals.rivals) row.other[name] = summarise(timed.seconds);
  row.why = rivals.why_not;
  if (const auto g = rivals.rivals.find("ggml"); g != rivals.rivals.end())
    row.measures["ggml"] = ratio(g->second.seconds, ours);
  for (const char* peer : {"openvino", "torch"}) add_best(rivals, ours, peer, row);
  if (m.one) row.measures["scaling"] = ratio(m.one->ours.seconds, ours);
  if (!m.base || m.base->ours.seconds.empty()) return;
  if (row.plan) {
    row.measures["plan"] = ratio(ours, m.base->ours.seconds);
    return;
  }
  const double base_pairs = cost(m.base->x().plan).pairs;
  row.measures["rate"] = ratio(m.base->ours.seconds, ours);
  row.measures["rate"].value *= pairs / base_pairs;
}

BenchRow make_row(const std::string& group, Member& m) {
  BenchRow row;
  row.group = group;
  row.problem = m.line.problem;
  row.threads = m.threads();
  row.plan = bool(m.x().make_plan);
  row.refused = m.refused;
  row.targets = m.line.targets;
  if (!m.one) std::erase_if(row.targets, [](const Target& t) { return t.measure == "scaling"; });
  if (!m.refused.empty()) return row;
  const Problem& p = m.x().plan.problem;
  const double pairs = cost(m.x().plan).pairs, flops = pairs * 2 * double(p.dk + p.dv);
  row.seconds = summarise(m.ours.seconds);
  if (!row.plan) {
    row.gflops = flops / row.seconds.value / 1e9;
    row.kv_gbs = kv_read(m.x(), pairs) / row.seconds.value / 1e9;
    row.flops_per_byte = flops / bytes_touched(m.x());
    m.judge(row);
  }
  add_measures(m, pairs, row);
  return row;
}

// All members of a series, thread count by thread count.
Members make_members(const std::vector<ProblemLine>& series, const Rounds& rounds, Peers& peers) {
  Members out;
  std::vector<std::shared_ptr<TextProblem>> problems;
  for (const ProblemLine& line : series)
    problems.push_back(std::make_shared<TextProblem>(parse_problem(line.problem)));
  for (size_t t = 0; t < rounds.threads.size(); ++t) {
    const size_t first = out.size();
    for (size_t n = 0; n < series.size(); ++n) {
      auto m = std::make_unique<Member>(series[n], problems[n], rounds.threads[t]);
      for (size_t i = first; i < out.size(); ++i) {
        const Member& other = *out[i];
        if (other.line.problem == series[n].base) m->base = &other;
        const bool same = rivals_problem(other.line.problem) == rivals_problem(series[n].problem) &&
                          other.line.alone == series[n].alone &&
                          other.line.peers == series[n].peers;
        if (same && !m->same_rivals && !other.same_rivals) m->same_rivals = &other;
      }
      if (!m->same_rivals) {
        m->add_ggml(rounds.ggml);
        for (auto& peer : peers)
          if (series[n].peers) m->add_peer(*peer);
      }
      if (t > 0) m->one = out[n].get();
      out.push_back(std::move(m));
    }
  }
  return out;
}

// Both sides of every ratio alternate within a round, in turn first and last.
void sample(Member& m, bool rivals_first) {
  const auto rivals = [&] {
    for (auto& [name, timed] : m.rivals) timed.sample();
  };
  if (rivals_first) rivals();
  if (m.refused.empty()) m.ours.sample();
  if (!rivals_first) rivals();
}

void play(Members& members, const Rounds& rounds, cpu::Peaks& peaks) {
  const auto bound_by_reading = [](const auto& m) {
    return m->x().plan.problem.nq <= kDecodeQueries;
  };
  const bool read = std::any_of(members.begin(), members.end(), bound_by_reading);
  const double begin = now();
  for (int n = 0; n <= rounds.least || (now() - begin < rounds.seconds && n < kMostRounds); ++n) {
    double fma_now = 0, read_now = 0;
    for (size_t i = 0; i < members.size(); ++i) {
      Member& m = *members[i];
      if (i == 0 || m.threads() != members[i - 1]->threads()) {
        fma_now = peaks.fma_gflops(m.threads());
        if (read) read_now = peaks.read_gbs(m.threads());
      }
      sample(m, n % 2 == 1);
      if (n == 0 || !m.refused.empty()) continue;  // warm-up
      m.fma.push_back(fma_now);
      if (read) m.read.push_back(read_now);
    }
  }
}

}  // namespace

std::vector<std::vector<ProblemLine>> series_of(const ProblemFile& file) {
  std::vector<std::vector<ProblemLine>> out;
  for (const ProblemLine& line : file.lines) {
    const std::string& base = line.base.empty() ? line.problem : line.base;
    if (out.empty() || out.back()[0].problem != base) {
      ProblemLine first = line;
      if (!line.base.empty()) {
        first = ProblemLine{};
        first.problem = base;
        first.alone = true;
      }
      out.push_back({first});
      if (line.base.empty()) continue;
    }
    out.back().push_back(line);
  }
  return out;
}

std::vector<BenchRow> run_series(const std::string& group, const std::vector<ProblemLine>& series,
                                 const Rounds& rounds, cpu::Peaks& peaks, Peers& peers) {
  Members members = make_members(series, rounds, peers);
  play(members, rounds, peaks);
  std::vector<BenchRow> rows;
  const size_t lines = series.size();
  for (size_t n = 0; n < lines; ++n)
    for (size_t t = 0; t < rounds.threads.size(); ++t)
      rows.push_back(make_row(group, *members[t * lines + n]));
  for (auto& peer : peers) peer->forget();
  return rows;
}

Verdict judge_target(const BenchRow& row, const Target& t) {
  const auto it = row.measures.find(t.measure);
  if (!row.refused.empty()) return Verdict::miss;
  if (it == row.measures.end()) return Verdict::unknown;
  const double x = it->second.value;
  return (t.at_most ? x <= t.value : x >= t.value) ? Verdict::pass : Verdict::miss;
}

}  // namespace regard::cli
