#include "cuda/lists.h"

namespace regard::cuda {

void leave(int device, std::initializer_list<const std::shared_ptr<stages::Memory>*> memories,
           cudaEvent_t event) {
  int before = 0;
  if (cudaGetDevice(&before) != cudaSuccess) return;
  cudaSetDevice(device);
  cudaDeviceSynchronize();
  if (event) cudaEventDestroy(event);
  for (const std::shared_ptr<stages::Memory>* m : memories)
    if (*m && m->use_count() == 1) (*m)->stream = nullptr;
  cudaSetDevice(before);
}

PlacedList::PlacedList(IndexList shape, std::shared_ptr<stages::Memory> start,
                       std::shared_ptr<stages::Memory> index, bool uncut,
                       std::shared_ptr<stages::Memory> bits)
    : DeviceList(std::move(shape)),
      start_(std::move(start)),
      index_(std::move(index)),
      uncut_(uncut),
      bits_(std::move(bits)) {
  check(cudaEventCreateWithFlags(&made_, cudaEventDisableTiming), "make an event");
  check(cudaEventRecord(made_, cudaStream_t(start_->stream)), "record an event");
}

const uint32_t* PlacedList::index() const {
  std::call_once(once_, [this] {
    if (index_) return;
    const OnDevice here(start_->device);
    index_ = written();
    check(cudaEventRecord(made_, cudaStream_t(start_->stream)), "record an event");
    done_ = false;
  });
  return static_cast<const uint32_t*>(index_->at);
}

PlacedList::~PlacedList() { leave(start_->device, {&start_, &index_, &bits_}, made_); }

void PlacedList::await(void* stream) const {
  if (done_) return;
  cudaStreamCaptureStatus status;
  check(cudaStreamIsCapturing(cudaStream_t(stream), &status), "look at the stream");
  if (status == cudaStreamCaptureStatusNone) {
    check(cudaStreamWaitEvent(cudaStream_t(stream), made_, 0), "wait for the lists");
    return;
  }
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "wait for the lists");
  const cudaError_t waited = cudaEventSynchronize(made_);
  check(cudaThreadExchangeStreamCaptureMode(&mode), "wait for the lists");
  check(waited, "wait for the lists");
  done_ = true;
}

IndexList PlacedList::fetch() const {
  const OnDevice here(start_->device);
  const uint32_t* const entries = index();
  check(cudaEventSynchronize(made_), "wait for the lists");
  IndexList out = shape();
  out.start.resize(size_t(out.batch * out.heads * out.rows + 1));
  copy(out.start.data(), start(), int64_t(out.start.size() * sizeof(int64_t)));
  out.index.resize(size_t(out.start.back()));
  copy(out.index.data(), entries, int64_t(out.index.size() * sizeof(uint32_t)));
  return out;
}

namespace stages {

TileBits Bits::combined(const TileBits& a, Op op, const TileBits& b) const {
  Stage stage("tile bits", *memory_);
  Combined p;
  p.a = stage.bits(a), p.b = stage.bits(b);
  p.batch = std::max(a.batch, b.batch), p.heads = std::max(a.heads, b.heads);
  p.words = a.rows * a.words_per_row();
  p.a_head = a.heads == 1 ? 0 : p.words, p.a_batch = a.batch == 1 ? 0 : a.heads * p.words;
  p.b_head = b.heads == 1 ? 0 : p.words, p.b_batch = b.batch == 1 ? 0 : b.heads * p.words;
  p.op = op == Op::either ? Combined::either : op == Op::both ? Combined::both : Combined::without;
  const TileBits out = stage.bits(p.batch, p.heads, a.rows, a.cols, &p.out);
  if (p.words > 0) launch_combined(p, memory_->stream);
  stage.launched();
  return out;
}

namespace {

// Entries that lists may have on a GPU without a look at how many there are: 256 MB.
constexpr int64_t kUncounted = int64_t(1) << 26;

// The most tiles that rows see.
int64_t most_entries(const TileBits& bits, int bq, int bk, const Seen& s) {
  int64_t tiles = 0;
  for (int64_t r = 0; r < bits.rows; ++r) {
    const int64_t last = std::min((r + 1) * bq, s.nq) - 1;
    const int64_t keys = s.causal ? std::clamp<int64_t>(last + s.offset + 1, 0, s.nk) : s.nk;
    tiles += std::min(bits.cols, ceil_div(keys, bk));
  }
  return tiles * bits.batch * bits.heads;
}

}  // namespace

std::shared_ptr<const DeviceList> Bits::lowered(const TileBits& bits, int bq, int bk,
                                                const Problem& problem, const Branch& b) const {
  if (!causal_alone(problem, b)) return nullptr;
  Stage stage("lists", *memory_);
  TileLists p;
  p.bits = reinterpret_cast<const uint32_t*>(data());
  p.seen = {problem.nq, problem.nk, problem.offset, b.rule.causal};
  p.lists = bits.batch * bits.heads * bits.rows;
  p.rows = int32_t(bits.rows), p.words = int32_t(2 * bits.words_per_row()), p.bq = bq, p.bk = bk;
  std::shared_ptr<Memory> start = stage.kept((p.lists + 1) * 8);
  p.start = static_cast<int64_t*>(start->at);
  launch_tile_starts(p, memory_->stream);
  int64_t entries = most_entries(bits, bq, bk, p.seen);
  if (entries > kUncounted) entries = stage.fetch(p.start + p.lists, 1)[0];
  std::shared_ptr<Memory> index = stage.kept(entries * 4);
  p.index = static_cast<uint32_t*>(index->at);
  launch_tile_lists(p, memory_->stream);
  stage.launched();
  IndexList shape;
  shape.batch = bits.batch, shape.heads = bits.heads;
  shape.rows = bits.rows, shape.cols = bits.cols, shape.bq = bq, shape.bk = bk;
  return std::make_shared<PlacedList>(std::move(shape), std::move(start), std::move(index), false,
                                      memory_);
}

}  // namespace stages
}  // namespace regard::cuda
