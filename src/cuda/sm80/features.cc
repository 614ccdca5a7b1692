#include "cuda/sm80/features.h"

#include <cmath>

#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {

FeatureRows::FeatureRows(const Problem& p, const Branch& b, const Tensors& t, Upload* upload,
                         const std::function<int64_t(int64_t)>& reserve) {
  constexpr float kLog2e = 1.4426950408889634f;
  const View& w = b.weight.directions.view;
  FeatureParams f;
  f.kind = b.weight.kind, f.type = t.q.dtype == DType::f16 ? Type::f16 : Type::bf16;
  f.d = int32_t(p.dk), f.m = int32_t(w ? w.size[2] : p.dk);
  if (w) {  // [dk][m]: threads that share a channel read side by side
    std::vector<float> lines(size_t(p.dk) * size_t(f.m)), row(static_cast<size_t>(p.dk));
    for (int64_t r = 0; r < f.m; ++r) {
      read_row(w, 0, 0, r, row.data());
      for (int64_t c = 0; c < p.dk; ++c) lines[size_t(c * f.m + r)] = row[size_t(c)];
    }
    directions_ = upload->put(lines);
    f.factor = std::sqrt(p.scale) * kLog2e, f.half = p.scale * kLog2e / 2;
    f.offset = -std::log2(float(f.m)) / 2;
  }
  keys_ = queries_ = f;
  keys_.heads = int32_t(p.kv_heads), keys_.n = int32_t(p.nk);
  keys_.rows = p.batch * p.kv_heads * p.nk;
  queries_.heads = int32_t(p.heads), queries_.n = int32_t(p.nq);
  queries_.rows = p.batch * p.heads * p.nq;
  k_at_ = reserve(keys_.rows * f.m * 4), k_top_at_ = reserve(keys_.rows * 4);
  q_at_ = reserve(queries_.rows * f.m * 4), q_top_at_ = reserve(queries_.rows * 4);
}

void FeatureRows::run(const Upload& upload, char* workspace, void* stream, Params* p) const {
  const auto make = [&](FeatureParams f, int64_t at, int64_t top_at) {
    if (directions_ >= 0) f.directions = upload.at<float>(directions_);
    f.to = reinterpret_cast<float*>(workspace + at);
    f.top = reinterpret_cast<float*>(workspace + top_at);
    launch_features(f, stream);
    check(cudaPeekAtLastError(), "launch the kernel of features");
  };
  FeatureParams k = keys_, q = queries_;
  k.from = paged(*p, p->k, p->k_page), q.from.rows = p->q;
  make(k, k_at_, k_top_at_);
  make(q, q_at_, q_top_at_);
  tell(workspace, p);
}

void FeatureRows::tell(char* workspace, Params* p) const {
  p->features = keys_.m;
  p->k_features = reinterpret_cast<const float*>(workspace + k_at_);
  p->q_features = reinterpret_cast<const float*>(workspace + q_at_);
  p->k_top = reinterpret_cast<const float*>(workspace + k_top_at_);
  p->q_top = reinterpret_cast<const float*>(workspace + q_top_at_);
}

}  // namespace regard::cuda::sm80
