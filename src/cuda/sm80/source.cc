#include "cuda/sm80/source.h"

#include <bit>

#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {
namespace {

// A copy of f32 rows side by side, in another type.
Tensor rounded(const View& from, DType type) {
  const Tensor to = make_tensor(type, from.size);
  std::vector<float> row(size_t(from.size[3]));
  for (int64_t b = 0; b < from.size[0]; ++b)
    for (int64_t h = 0; h < from.size[1]; ++h)
      for (int64_t i = 0; i < from.size[2]; ++i) {
        read_row(from, b, h, i, row.data());
        write_row(to.view, b, h, i, row.data());
      }
  return to;
}

int64_t put(const Tensor& t, Upload* upload) {
  return upload->put_bytes(t.view.data, t.view.numel() * info(t.view.dtype).bytes);
}

}  // namespace

SourceRows::SourceRows(const Problem& p, const Branch& b, const Tensors& t, Upload* upload,
                       const std::function<int64_t(int64_t)>& reserve, Params* params)
    : p_(p), keys_(source_keys(p, b)) {
  const Source& s = b.source;
  const Type type = t.q.dtype == DType::f16 ? Type::f16 : Type::bf16;
  const int64_t rows = p.batch * p.kv_heads * keys_;
  const bool pooled = s.kind == SourceKind::pooled, mapped = bool(s.value_map);
  if (t.pages) {
    pool_.from.shift = std::countr_zero(uint64_t(t.k.size[2]));
    pool_.from.mask = int32_t(t.k.size[2]) - 1;
  }
  pool_.kv_heads = int32_t(p.kv_heads), pool_.nk = int32_t(p.nk), pool_.rows = rows;
  pool_.block = pooled ? s.block : 1, pool_.blocks = int32_t(keys_);
  pool_.type = pool_.to_type = value_type_ = type;
  if (s.kind == SourceKind::given) {
    value_type_ = mapped ? Type::f32 : type;
    given_k_ = put(rounded(s.keys.view, t.q.dtype), upload);
    given_v_ = put(rounded(s.values.view, mapped ? DType::f32 : t.q.dtype), upload);
  }
  // Mapped values leave their pages, so their keys do too.
  if (pooled || (mapped && t.pages && s.kind == SourceKind::raw)) k_at_ = reserve(rows * p.dk * 2);
  if (pooled) {
    value_type_ = mapped ? Type::f32 : type;
    v_at_ = reserve(rows * p.dv * (mapped ? 4 : 2));
    const View& own = b.score.key_bias.view;
    tokens_.heads = own ? int32_t(own.size[1]) : 1, tokens_.n = int32_t(keys_);
    tokens_.block = s.block, tokens_.tokens = int32_t(p.nk);
    tokens_.count = (own ? own.size[0] : 1) * tokens_.heads * keys_;
    tokens_at_ = reserve(tokens_.count * 4);
  }
  if (mapped) {
    const View& map = s.value_map.view;
    map_ = put(rounded(map, DType::f32), upload);
    mapped_at_ = reserve(rows * p.dv * 2);
    mapping_.map_head = map.size[1] == 1 ? 0 : (p.dv + 1) * p.dv;
    mapping_.kv_heads = int32_t(p.kv_heads), mapping_.n = int32_t(keys_);
    mapping_.d = int32_t(p.dv), mapping_.rows = rows;
    mapping_.from_type = value_type_, mapping_.type = type;
  }
  if (t.pages && k_at_ < 0 && given_k_ < 0)
    params->page_shift = pool_.from.shift, params->page_mask = pool_.from.mask;
}

Rows SourceRows::made(char* data, int64_t d, int64_t bytes) const {
  const int64_t head = keys_ * d * bytes;
  return {data, p_.kv_heads * head, head, d * bytes};
}

void SourceRows::run(const Upload& upload, char* workspace, void* stream, Params* p) const {
  const auto pool = [&](Rows* x, int64_t* page, int64_t at, int64_t d, Type to) {
    PoolParams pool = pool_;
    pool.from.rows = *x, pool.from.page = *page;
    pool.from.pages = p->pages, pool.from.pages_row = p->pages_row;
    pool.d = int32_t(d), pool.to = workspace + at, pool.to_type = to;
    launch_pool(pool, stream);
    check(cudaPeekAtLastError(), "launch the pooling kernel");
    *x = made(pool.to, d, to == Type::f32 ? 4 : 2), *page = 0;
  };
  const auto uploaded = [&](int64_t at) { return const_cast<char*>(upload.at<char>(at)); };
  const bool f32 = value_type_ == Type::f32;
  bool in_pages = p->pages;
  if (given_k_ >= 0) {
    p->k = made(uploaded(given_k_), p_.dk, 2), p->v = made(uploaded(given_v_), p_.dv, f32 ? 4 : 2);
    in_pages = false;
  }
  if (v_at_ >= 0) pool(&p->v, &p->v_page, v_at_, p_.dv, value_type_);
  if (tokens_at_ >= 0) {
    TokensParams x = tokens_;
    x.from = p->key_bias, x.to = reinterpret_cast<float*>(workspace + tokens_at_);
    launch_tokens(x, stream);
    check(cudaPeekAtLastError(), "launch the kernel of keys' weights");
    const int64_t heads = x.heads, batch = x.count / x.n / heads;
    p->key_bias = {workspace + tokens_at_, batch == 1 ? 0 : heads * x.n * 4,
                   heads == 1 ? 0 : int64_t(x.n) * 4, 4};
  }
  if (map_ >= 0) {
    MapParams m = mapping_;
    m.from.rows = p->v, m.map = upload.at<float>(map_), m.to = workspace + mapped_at_;
    if (in_pages && v_at_ < 0) {
      m.from = pool_.from;
      m.from.rows = p->v, m.from.page = p->v_page;
      m.from.pages = p->pages, m.from.pages_row = p->pages_row;
    }
    launch_map(m, stream);
    check(cudaPeekAtLastError(), "launch the kernel that maps values");
    p->v = made(m.to, p_.dv, 2);
  }
  if (k_at_ >= 0) pool(&p->k, &p->k_page, k_at_, p_.dk, pool_.type);
  if (k_at_ >= 0 || !in_pages) p->pages = nullptr;
}

}  // namespace regard::cuda::sm80
