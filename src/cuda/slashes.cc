// lists::vertical_slash where the probe's sums lie on a GPU: tiles as bits, single keys as a list
// that is written when somebody asks, and both as pieces for the kernels that read those.
#include "cuda/stages/slashes.h"
#include "cuda/lists.h"
#include "stages/device.h"

namespace regard::cuda {
namespace {

using namespace stages;  // NOLINT

// What the kernels have found: the chosen columns and diagonals, each row's ranges, how many single
// keys it has and, where there was room, its pieces.
struct Found {
  Slashes p;  // `ranges`: of all heads, or null
  std::shared_ptr<Memory> chosen, start, ranges;
  PlacedList::Pieces pieces;  // null arrays: none
  bool uncut = false;         // known without a look
  mutable std::once_flag summed = {};
  ~Found() { leave(chosen->device, {&chosen, &start, &ranges, &pieces.memory, &pieces.tiles}); }
};

// The single keys. They are written when somebody asks for them; `causal`: lowered under that rule.
class SlashKeys : public PlacedList {
 public:
  SlashKeys(const IndexList& shape, std::shared_ptr<const Found> found, bool causal, bool uncut)
      : PlacedList(shape, found->start, nullptr, uncut),
        found_(std::move(found)),
        causal_(causal) {}

  const Pieces* pieces() const override {
    return causal_ && found_->pieces.index ? &found_->pieces : nullptr;
  }

 protected:
  // Their number is waited for: what rows may hold at most is many times what they do.
  std::shared_ptr<Memory> written() const override {
    Slashes p = found_->p;
    Stage stage("vertical slash", *found_->chosen);
    const int64_t lists = int64_t(p.heads) * p.rows;
    std::call_once(found_->summed, [&] { launch_sums(p.start, lists, found_->chosen->stream); });
    const int64_t count = stage.fetch(p.start + lists, 1)[0];
    p.causal = causal_;
    if (!p.have_ranges) p.take_ranges(stage.memory<char>(p.range_bytes()));
    std::shared_ptr<Memory> index = stage.kept(count * 4);
    p.index = static_cast<uint32_t*>(index->at);
    if (lists > 0) launch_slash_keys(p, found_->chosen->stream);
    stage.launched();
    return index;
  }

 private:
  const std::shared_ptr<const Found> found_;
  const bool causal_;
};

// The same before it is lowered.
class SlashColumns : public DeviceList {
 public:
  SlashColumns(IndexList shape, std::shared_ptr<const Found> found)
      : DeviceList(std::move(shape)), found_(std::move(found)) {}

  std::shared_ptr<const DeviceList> lowered(const Problem& p, const Branch& b) const override {
    if (!causal_alone(p, b)) return nullptr;
    bool uncut = !b.rule.causal || found_->uncut;
    if (!uncut) uncut = Stage("vertical slash", *found_->chosen).fetch(found_->p.cut, 1)[0] == 0;
    return std::make_shared<SlashKeys>(shape(), found_, b.rule.causal, uncut);
  }

 protected:
  IndexList fetch() const override { return *SlashKeys(shape(), found_, false, true).host(); }

 private:
  const std::shared_ptr<const Found> found_;
};

}  // namespace
}  // namespace regard::cuda

namespace regard::device {

namespace on = cuda::stages;

bool lists_slashes(const Problem& p) {
  return std::max(p.nk, p.offset + p.nq) <= on::kMostSlashKeys && p.offset > -on::kMostSlashKeys &&
         p.nq <= on::kMostSlashKeys;
}

namespace {

// Room for the most pieces and other keys that rows may have; none beyond 512 MB of either.
cuda::PlacedList::Pieces pieces_of(on::Stage& stage, const on::Slashes& p) {
  const int64_t lists = int64_t(p.heads) * p.rows, pieces = lists * p.most,
                keys = lists * p.columns;
  cuda::PlacedList::Pieces out;
  if (std::max(pieces, keys) > int64_t(1) << 27) return out;
  out.memory = stage.kept(2 * lists * 16 + (pieces + keys) * 4 + 4);
  out.start = static_cast<int64_t*>(out.memory->at), out.key_start = out.start + 2 * lists;
  out.index = reinterpret_cast<uint32_t*>(out.key_start + 2 * lists);
  out.key_index = out.index + pieces;
  return out;
}

}  // namespace

lists::TilesAndColumns vertical_slash(const Problem& problem, const estimate::VerticalSlash& s,
                                      int64_t columns, int64_t diagonals) {
  constexpr int64_t kBlock = on::kSlashBlock;
  const on::Scores& from = static_cast<const on::Scores&>(*s.device);
  on::Stage stage("vertical slash", from.memory());
  void* const stream = from.memory().stream;
  on::Slashes p;
  p.heads = int32_t(problem.batch * problem.heads);
  p.vertical = from.data(), p.slash = from.data() + p.heads * s.nk;
  p.nq = problem.nq, p.nk = problem.nk, p.offset = problem.offset, p.offsets = s.offsets;
  p.length = int32_t(std::max<int64_t>(0, p.offset + p.nq));
  p.keys = int32_t(std::min<int64_t>(p.nk, p.length));
  p.columns = int32_t(std::min<int64_t>(columns, p.keys));
  p.diagonals = int32_t(std::min<int64_t>(diagonals, p.length));
  p.forced_columns = int32_t(std::min<int64_t>(s.forced_columns, p.keys));
  p.forced_diagonals = int32_t(std::min<int64_t>(s.forced_diagonals, p.length));
  const int64_t cols = on::ceil_div(p.nk, kBlock), lists = p.heads * on::ceil_div(p.nq, kBlock);
  p.rows = int32_t(on::ceil_div(p.nq, kBlock)), p.words = int32_t(2 * cols);
  // Ranges are at least 64 keys long and do not meet. As many heads at a time as theirs fit into
  // 256 MB.
  const int64_t end = std::max<int64_t>(0, p.offset + p.rows * kBlock);
  p.most = int32_t(std::min<int64_t>(p.diagonals, end / kBlock + 2));
  p.together = int32_t(std::clamp<int64_t>(
      (int64_t(256) << 20) / std::max<int64_t>(1, int64_t(8) * p.rows * p.most), 1, p.heads));
  // One block: chosen columns, then chosen diagonals.
  p.diagonal_words = int32_t(on::ceil_div(p.length, 32));
  const int64_t words = p.heads * (int64_t(p.words) + p.diagonal_words);
  std::shared_ptr<on::Memory> chosen = stage.kept(4 * words);
  p.chosen = static_cast<uint32_t*>(chosen->at);
  p.chosen_diagonals = p.chosen + int64_t(p.heads) * p.words;
  std::shared_ptr<on::Memory> start = stage.kept((lists + 2) * 8);  // and the keys that are cut
  p.start = static_cast<int64_t*>(start->at), p.cut = p.start + lists + 1;
  stage.zero(p.chosen, words), stage.zero(p.start, lists + 2);
  const TileBits tiles = stage.bits(problem.batch, problem.heads, p.rows, cols, &p.tiles);
  p.tile_words = int32_t(tiles.words_per_row());
  stage.zero(p.tiles, lists * p.tile_words);
  cuda::PlacedList::Pieces pieces = pieces_of(stage, p);
  pieces.tiles = static_cast<const on::Bits&>(*tiles.device()).shared();
  p.piece_start = pieces.start, p.piece_index = pieces.index;
  p.rest_start = pieces.key_start, p.rest_index = pieces.key_index;
  std::shared_ptr<on::Memory> ranges;
  if (lists > 0) {
    on::launch_best_slashes(p, stream);
    ranges = stage.kept(p.range_bytes());
    p.take_ranges(ranges->at);
    on::launch_slash_tiles(p, stream);
  }
  stage.launched();
  IndexList shape;
  shape.batch = problem.batch, shape.heads = problem.heads;
  shape.rows = p.rows, shape.cols = problem.nk, shape.bq = int32_t(kBlock), shape.bk = 1;
  p.vertical = p.slash = nullptr;  // they may go
  p.have_ranges = ranges && p.together == p.heads;
  if (!p.have_ranges) ranges.reset();
  // The nearest diagonal ends each row's last range, so nothing below it is cut where rows and
  // tiles meet.
  const bool uncut = p.diagonals > 0 && p.forced_diagonals > 0 && p.offset % kBlock == 0;
  lists::TilesAndColumns out;
  out.bq = out.bk = int(kBlock), out.tiles = tiles;
  out.columns = ListRef(std::make_shared<const cuda::SlashColumns>(
      std::move(shape),
      std::make_shared<const cuda::Found>(p, std::move(chosen), std::move(start), std::move(ranges),
                                          std::move(pieces), uncut)));
  return out;
}

}  // namespace regard::device
