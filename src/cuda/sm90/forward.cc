#include <cuda.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/maxima.h"
#include "cuda/sm90/launch.h"
#include "cuda/sm90/params.h"
#include "cuda/tensor_map.h"

namespace regard::cuda::sm90 {

#define REGARD_SM90(NAME, ...) extern const Instance NAME;
#include "cuda/sm90/instances.def"
#undef REGARD_SM90
#define REGARD_SM90(NAME, ...) &NAME,
const Instance* const kInstances[] = {
#include "cuda/sm90/instances.def"
};
#undef REGARD_SM90
const int kInstanceCount = sizeof(kInstances) / sizeof(kInstances[0]);

#define REGARD_SM90(NAME, ...) extern const Instance NAME;
#include "cuda/sm90/gathering.def"
#undef REGARD_SM90
#define REGARD_SM90(NAME, ...) &NAME,
const Instance* const kGathering[] = {
#include "cuda/sm90/gathering.def"
};
#undef REGARD_SM90
const int kGatheringCount = sizeof(kGathering) / sizeof(kGathering[0]);

namespace {

constexpr int kFar = 1 << 30;          // no limit
constexpr int kMost = 1 << 28;         // rows and offsets: sums of two and kFar stay below 2^31
constexpr int64_t kCached = 24 << 20;  // bytes of K and V kept in flight in L2 (50 MB)

bool listed(const Params& p) { return p.start || p.key_start; }

// Heads of a group that take turns as rows of a tile, as a power of two: the fewest that fill
// tiles of `rows` rows to within a tenth of the best.
int packing(const Params& p, int rows) {
  int most = 0;
  const int group = p.heads / p.kv_heads;
  while (group % (2 << most) == 0 && 2 << most <= 16) ++most;
  if (listed(p) && p.list_heads > p.kv_heads) most = 0;
  const auto filled = [&](int pack) {
    const double n = static_cast<double>(p.cu_q ? p.max_nq : p.nq) * (1 << pack);
    return n / (std::ceil(n / rows) * rows);
  };
  double best = 0;
  for (int i = 0; i <= most; ++i) best = std::max(best, filled(i));
  int pack = 0;
  while (filled(pack) < 0.9 * best) ++pack;
  // A tile of rows lies in one row of the list.
  while (listed(p) && pack < most && (static_cast<int64_t>(p.bq) << pack) % rows != 0) ++pack;
  return pack;
}

bool fits(const Params& p, const Instance& i) {
  const int d = std::max(p.dk, p.dv);
  const bool hooks = p.softcap > 0 || p.alibi;
  if (i.type != static_cast<int>(p.type) || i.hooks != hooks) return false;
  if (i.d != (d <= 64 ? 64 : d <= 128 ? 128 : 256)) return false;
  if (!listed(p)) return true;
  return p.bk % i.piece == 0 && (static_cast<int64_t>(p.bq) << packing(p, i.rows)) % i.rows == 0;
}

// Tiles of rows a head, and works in all.
struct Grid {
  int pack, tiles, pairs, works;
};
Grid grid(const Params& p, int rows_a_tile) {
  const int pack = packing(p, rows_a_tile);
  const int64_t rows = (p.cu_q ? p.max_nq : p.nq) << pack;
  const int tiles = static_cast<int>((rows + rows_a_tile - 1) / rows_a_tile);
  const int pairs = (p.heads >> pack) * (p.cu_q ? p.sequences : p.batch);
  return {pack, tiles, pairs, tiles * pairs};
}

// Whether an instance is worth it; the later ones of its head size take what it leaves.
// At head size 128, three warpgroups hide each other's latencies, but a tile of 192 rows takes
// longer to begin and to end: it is for rows that read many keys (below a diagonal, where it wastes
// fewer, half as many), and where its rounds of works are at most a twentieth longer in all than
// those of 128 rows. At head size 64 only rows that read a few hundred keys below a diagonal run
// 128 a block. At head size 256 steps of 80 keys want rows of 1024.
bool pays(const Params& p, const Instance& x) {
  const bool wide = x.rows == 192;
  if (p.force || !(wide || (x.d == 256 && x.keys == 80))) return true;
  if (p.cu_q) return x.d != 128;  // lengths are not known here
  const int64_t window = p.left < 0 ? p.nk : std::min(p.nk, p.left + p.sink + 1);
  const int64_t keys = p.right < 0 ? window : std::min(window, p.nk - p.nq / 2);
  if (x.d == 256) return keys >= 1024;
  if (x.d == 64) return p.right < 0 || keys >= 512;
  const auto rounds = [&](int rows) { return (grid(p, rows).works + p.sms - 1) / p.sms * rows; };
  return keys >= (p.right < 0 ? 4096 : 2048) && rounds(192) <= 1.05 * rounds(128);
}

const Instance* choose(const Params& p) {
  const Instance* best = nullptr;
  const int count = p.key_start ? kGatheringCount : kInstanceCount;
  for (int i = 0; i < count; ++i) {
    const Instance& x = *(p.key_start ? kGathering : kInstances)[i];
    if (p.force && std::strcmp(p.force, x.name) != 0) continue;
    if (!best && fits(p, x) && pays(p, x)) best = &x;
  }
  return best;
}

// sizes and strides (elements, of axes 1 and up), innermost axis first.
void describe(CUtensorMap* map, Type type, void* data, int rank, const int64_t* sizes,
              const int64_t* strides, const int* box) {
  cuuint64_t size[5], stride[4];
  cuuint32_t boxes[5], steps[5];
  for (int i = 0; i < rank; ++i) {
    size[i] = sizes[i];
    boxes[i] = box[i];
    steps[i] = 1;
    // The stride of an axis of one element is never used, but must be legal.
    if (i > 0) stride[i - 1] = 2 * (sizes[i] == 1 ? 8 : strides[i - 1]);
  }
  const CUresult r = encode_tiled()(
      map, type == Type::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      rank, data, size, stride, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) {
    throw Error("cuda_sm90 forward: cuTensorMapEncodeTiled failed with code " + std::to_string(r));
  }
}

Divisor divisor(int by) {
  int bits = 0;
  while (int64_t{1} << bits < by) ++bits;
  const int shift = 31 + bits;
  return {by, static_cast<uint32_t>(((uint64_t{1} << shift) + by - 1) / by),
          static_cast<uint32_t>(shift)};
}

// Tiles of rows [least, end) of all pairs, `most` pairs a section.
Order order(int begin, int least, int end, int64_t most, int pairs) {
  const int wide = static_cast<int>(std::min<int64_t>(most, pairs));
  return {begin,         end - 1,
          pairs / wide,  divisor(wide * std::max(end - least, 1)),
          divisor(wide), divisor(std::max(pairs % wide, 1))};
}

int32_t limit(int64_t x) { return static_cast<int32_t>(std::clamp<int64_t>(x, -kMost, kMost)); }

std::string shape(const Params& p) {
  return "b" + std::to_string(p.batch) + " h" + std::to_string(p.heads) + ":" +
         std::to_string(p.kv_heads) + " nq" + std::to_string(p.nq) + " nk" + std::to_string(p.nk) +
         " dk" + std::to_string(p.dk) + " dv" + std::to_string(p.dv);
}

bool aligned(const Tensor& t, int element, int heads, int batch) {
  const auto ok = [&](int64_t stride) { return stride * element % 16 == 0 && stride >= 0; };
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && ok(t.row) && (heads == 1 || ok(t.head)) &&
         (batch == 1 || ok(t.batch));
}

}  // namespace

std::string refusal(const Params& p) {
  const auto no = [&](const std::string& why) { return "cuda_sm90: " + shape(p) + ": " + why; };
  if (p.type == Type::f32) return no("q, k, v are f32; bf16 and f16 are accepted");
  if (p.out_type != p.type && p.out_type != Type::f32) {
    return no("the output's type is neither that of q nor f32");
  }
  if (p.partial && (p.out_type != Type::f32 || !p.lse || p.sink_logit)) {
    return no("Partials are f32 sums with lse and without sinks");
  }
  if (p.nq <= 0 || p.nk < 0 || p.nq > kMost || p.nk > kMost) return no("sizes up to 2^28 rows");
  if (p.dk % 8 != 0 || p.dv % 8 != 0 || p.dk <= 0 || p.dv <= 0 || std::max(p.dk, p.dv) > 256) {
    return no("head sizes are multiples of 8 up to 256");
  }
  if (p.kv_heads <= 0 || p.heads % p.kv_heads != 0) return no("kv_heads must divide heads");
  if (!(p.scale > 0)) return no("scale must be positive");
  const int out_size = p.out_type == Type::f32 ? 4 : 2;
  if (!aligned(p.q, 2, p.heads, p.batch) || !aligned(p.k, 2, p.kv_heads, p.batch) ||
      !aligned(p.v, 2, p.kv_heads, p.batch) || !aligned(p.out, out_size, p.heads, p.batch)) {
    return no("pointers and strides must be multiples of 16 bytes");
  }
  if (p.cu_q && (p.batch != 1 || !p.cu_k))
    return no("packed sequences take batch 1, cu_q and cu_k");
  if (listed(p) && p.cu_q) return no("tiles of packed sequences are not accepted");
  if (p.key_start && !choose(p))
    return no("single keys beside tiles of " + std::to_string(p.bq) + " x " + std::to_string(p.bk) +
              "; multiples of 64 x 64, head sizes up to 128 and plain scores are accepted");
  if (p.start && !choose(p)) {
    return no("tiles of " + std::to_string(p.bq) + " x " + std::to_string(p.bk) +
              "; multiples of 64 x 64 (head size up to 128) and 128 x 64 are accepted");
  }
  if (p.loose && (!p.start || !p.key_start || p.bk != 64))
    return no("keys as entries are accepted beside single keys, 64 an entry");
  if (!choose(p)) return no("no instance" + std::string(p.force ? p.force : ""));
  return "";
}

size_t workspace(const Params& p) {
  const Instance* x = choose(p);
  return kCleared + size_t{4} * (x->rows / 16) * grid(p, x->rows).works;
}

void forward(const Params& p, cudaStream_t stream) {
  if (const std::string why = refusal(p); !why.empty()) throw Error(why);
  const Instance& x = *choose(p);
  const auto [pack, tiles, pairs, works] = grid(p, x.rows);
  const int turns = 1 << pack;
  Call c{};
  const auto rows = [&](CUtensorMap* map, const Tensor& t, int d, int rows_a_box) {
    const int64_t sizes[] = {d, turns, p.nq, p.heads / turns, p.batch};
    const int64_t strides[] = {t.head, t.row, t.head * turns, t.batch};
    const int box[] = {64, turns, rows_a_box / turns, 1, 1};
    describe(map, p.type, t.data, 5, sizes, strides, box);
  };
  rows(&c.q, p.q, p.dk, 64);
  if (p.out_type == p.type && !p.cu_q) rows(&c.o, p.out, p.dv, 16);
  const auto keys = [&](CUtensorMap* map, const Tensor& t, int d) {
    const int64_t sizes[] = {d, std::max<int64_t>(p.nk, 1), p.kv_heads, p.batch};
    const int64_t strides[] = {t.row, t.head, t.batch};
    const int box[] = {64, x.piece, 1, 1};
    describe(map, p.type, t.data, 4, sizes, strides, box);
  };
  keys(&c.k, p.k, p.dk);
  keys(&c.v, p.v, p.dv);
  const auto raw = [](const Tensor& t) { return Raw{t.data, t.batch, t.head, t.row}; };
  c.raw_q = raw(p.q), c.raw_k = raw(p.k), c.raw_v = raw(p.v);
  c.out = p.out.data;
  c.out_batch = p.out.batch;
  c.out_head = p.out.head;
  c.out_row = p.out.row;
  c.lse = p.lse;
  c.lse_head = p.nq;
  c.cu_q = p.cu_q;
  c.cu_k = p.cu_k;
  c.start = p.start;
  c.index = p.index;
  c.key_start = p.key_start;
  c.key_index = p.key_index;
  c.alibi = p.alibi;
  c.sink_logit = p.sink_logit;
  c.nq = static_cast<int32_t>(p.nq);
  c.nk = static_cast<int32_t>(p.nk);
  c.dk = p.dk, c.dv = p.dv;
  c.pack = pack;
  const int sharing = (p.heads / p.kv_heads) >> pack;
  c.heads = divisor(p.heads >> pack);
  c.sharing = divisor(sharing);
  c.works = works;
  c.offset = limit(p.offset);
  c.right = p.right < 0 ? kFar : limit(std::min<int64_t>(p.right, kMost) + 1);
  c.left = p.left < 0 ? -kFar : limit(-p.left);
  c.sink = p.left < 0 ? 0 : limit(p.sink);
  c.list_batch = static_cast<int32_t>(p.list_batch);
  c.list_heads = static_cast<int32_t>(p.list_heads);
  c.list_rows = static_cast<int32_t>(p.list_rows);
  c.bq = divisor(std::max(p.bq, 1));
  c.pieces = divisor(std::max(p.bk / x.piece, 1));
  c.unit = p.loose ? 1 : p.bk;
  c.apart = p.loose ? 2 : 1;
  c.float_out = p.out_type == Type::f32;
  c.partial = p.partial;
  constexpr float kLog2e = 1.4426950408889634f;
  c.scale = p.scale;
  c.softcap = p.softcap;
  c.scale_log2 = x.hooks ? 1.f : p.scale * kLog2e;
  c.unscale_log2 = 1 / c.scale_log2;
  const int blocks = std::min(c.works, p.sms * x.blocks);
  // A triangle's last section alone would leave multiprocessors without work beside its long ones.
  // The late tiles hold 0.4 of what all blocks do in the time of the longest one.
  int late = 0;
  if (p.right >= 0 && p.left < 0 && !listed(p) && c.works > blocks) {
    late = std::min(tiles / 2, static_cast<int>(std::sqrt(0.8 * blocks * tiles / pairs)));
  }
  // Rows of unequal lengths come longest first, those of as few heads as keep all blocks busy, or
  // as have room in L2: what a section reads first comes from memory, and the blocks wait for it
  // together.
  int64_t groups = 1;  // of heads that share a KV head, a section
  if (listed(p) || p.cu_q || p.right >= 0 || p.left >= 0) {
    const int64_t kv_bytes = std::max<int64_t>(1, p.nk * (p.dk + p.dv) * 2);
    const int64_t cached = std::max<int64_t>(1, kCached / kv_bytes);
    const int64_t works_of_one = int64_t{tiles} * sharing;
    groups = std::min(cached, (blocks + works_of_one - 1) / works_of_one);
  }
  c.order[0] = order(0, late, tiles, groups * sharing, pairs);
  c.order[1] = order(pairs * (tiles - late), 0, late, pairs, pairs);
  if (c.works > blocks) {
    c.counter = static_cast<int32_t*>(p.counters ? p.counters : p.workspace);
  }
  c.from_end = p.right >= 0 && !listed(p);
  c.share = p.out_type == Type::f32 ? kFloatShare : kRoundedShare;
  c.links = static_cast<int32_t*>(p.workspace) + kCleared / 4;
  x.launch(c, blocks, stream);
}

}  // namespace regard::cuda::sm90
