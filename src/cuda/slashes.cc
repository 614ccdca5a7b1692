// lists::vertical_slash where the probe's sums lie on a GPU: tiles as bits, single keys as a list
// that is written when it is lowered.
#include "cuda/lists.h"
#include "stages/device.h"

namespace regard::cuda {
namespace {

using namespace stages;  // NOLINT

// The single keys, before they are written: the chosen columns and diagonals, and how many keys
// each row has.
class SlashKeys : public DeviceList {
 public:
  // `ranges`: null where there was room for some heads' alone.
  SlashKeys(IndexList shape, const Slashes& p, std::shared_ptr<Memory> chosen,
            std::shared_ptr<Memory> start, std::shared_ptr<Memory> ranges)
      : DeviceList(std::move(shape)),
        p_(p),
        chosen_(std::move(chosen)),
        start_(std::move(start)),
        ranges_(std::move(ranges)) {}

  std::shared_ptr<const DeviceList> lowered(const Problem& p, const Branch& b) const override {
    return causal_alone(p, b) ? written(b.rule.causal) : nullptr;
  }

 protected:
  IndexList fetch() const override { return *written(false)->host(); }

 private:
  // Their number is waited for: what rows may hold at most is many times what they do.
  std::shared_ptr<const DeviceList> written(bool causal) const {
    Stage stage("vertical slash", *chosen_);
    Slashes p = p_;
    const int64_t lists = int64_t(p.heads) * p.rows;
    const std::vector<int64_t> count = stage.fetch(p.start + lists, 2);  // all; those cut
    p.causal = causal;
    if (!p.have_ranges) p.take_ranges(stage.memory<char>(p.range_bytes()));
    std::shared_ptr<Memory> index = stage.kept(count[0] * 4);
    p.index = static_cast<uint32_t*>(index->at);
    if (lists > 0) launch_slash_keys(p, chosen_->stream);
    stage.launched();
    return std::make_shared<PlacedList>(shape(), start_, std::move(index),
                                        !causal || count[1] == 0);
  }

  const Slashes p_;
  const std::shared_ptr<Memory> chosen_, start_, ranges_;
};

}  // namespace
}  // namespace regard::cuda

namespace regard::device {

namespace on = cuda::stages;

bool lists_slashes(const Problem& p) {
  return std::max(p.nk, p.offset + p.nq) <= on::kMostSlashKeys && p.offset > -on::kMostSlashKeys &&
         p.nq <= on::kMostSlashKeys;
}

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
  // One block: chosen columns, then the diagonals and their numbers.
  std::shared_ptr<on::Memory> chosen =
      stage.kept(4 * p.heads * (int64_t(p.words) + p.diagonals + 1));
  p.chosen = static_cast<uint32_t*>(chosen->at);
  p.list = reinterpret_cast<int32_t*>(p.chosen + int64_t(p.heads) * p.words);
  p.list_size = p.list + int64_t(p.heads) * p.diagonals;
  std::shared_ptr<on::Memory> start = stage.kept((lists + 2) * 8);  // and the keys that are cut
  p.start = static_cast<int64_t*>(start->at), p.cut = p.start + lists + 1;
  stage.zero(p.chosen, int64_t(p.heads) * p.words), stage.zero(p.start, lists + 2);
  const TileBits tiles = stage.bits(problem.batch, problem.heads, p.rows, cols, &p.tiles);
  p.tile_words = int32_t(tiles.words_per_row());
  stage.zero(p.tiles, lists * p.tile_words);
  std::shared_ptr<on::Memory> ranges;
  if (lists > 0) {
    on::launch_best_slashes(p, stream);
    ranges = stage.kept(p.range_bytes());
    p.take_ranges(ranges->at);
    on::launch_slash_tiles(p, stream);
    on::launch_sums(p.start, lists, stream);
  }
  stage.launched();
  IndexList shape;
  shape.batch = problem.batch, shape.heads = problem.heads;
  shape.rows = p.rows, shape.cols = problem.nk, shape.bq = int32_t(kBlock), shape.bk = 1;
  p.vertical = p.slash = nullptr;  // they may go
  p.have_ranges = ranges && p.together == p.heads;
  if (!p.have_ranges) ranges.reset();
  lists::TilesAndColumns out;
  out.bq = out.bk = int(kBlock), out.tiles = tiles;
  out.columns = ListRef(std::make_shared<const cuda::SlashKeys>(
      std::move(shape), p, std::move(chosen), std::move(start), std::move(ranges)));
  return out;
}

}  // namespace regard::device
