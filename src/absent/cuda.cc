// What links when CUDA is off.
#include "cuda/cuda.h"

#include "regard/status.h"
#include "stages/device.h"

namespace regard::cuda {
namespace {

const char* const kNotBuilt = "not built (REGARD_CUDA=OFF, or no nvcc when it was configured)";

[[noreturn]] void refuse() { throw Error(std::string("cuda: ") + kNotBuilt); }

}  // namespace

std::string absence() { return kNotBuilt; }
std::string sm80_refusal(const Plan&, const Tensors&) { return kNotBuilt; }
std::string sm90_refusal(const Plan&, const Tensors&) { return kNotBuilt; }
std::unique_ptr<Ready> sm80_ready(const Plan&, const Tensors&) { refuse(); }
std::unique_ptr<Ready> sm90_ready(const Plan&, const Tensors&) { refuse(); }
std::shared_ptr<void> allocate(int64_t) { refuse(); }
void copy(void*, const void*, int64_t) { refuse(); }
Tensor to_device(const View&) { refuse(); }
Tensor to_host(const View&) { refuse(); }
void synchronize(void*) { refuse(); }
std::string device_name() { refuse(); }
double time_graph(void (*)(void*, void*), void*, int, int) { refuse(); }

}  // namespace regard::cuda

namespace regard::device {

BlockScores antidiagonal(const Inputs&, int, int, void*) { cuda::refuse(); }
BlockScores pooled_means(const Inputs&, int, int, void*) { cuda::refuse(); }
bool selects(const BlockScores&, const Selector&) { cuda::refuse(); }
TileBits select(const BlockScores&, const Selector&) { cuda::refuse(); }
TileBits stripes(const Inputs&, const lists::TileStripes&, void*) { cuda::refuse(); }
TileBits put(const TileBits&, const View&, void*) { cuda::refuse(); }
estimate::VerticalSlash vertical_slash(const Inputs&, int, void*) { cuda::refuse(); }
bool lists_slashes(const Problem&) { cuda::refuse(); }
lists::TilesAndColumns vertical_slash(const Problem&, const estimate::VerticalSlash&, int64_t,
                                      int64_t) {
  cuda::refuse();
}
void probe_tiles(const Inputs&, int64_t, int64_t, double, void*, estimate::ProbeTiles*) {
  cuda::refuse();
}
std::vector<double> mean_products(const Inputs&, int64_t, int64_t, void*) { cuda::refuse(); }
BlockScores row_softmax(const BlockScores&) { cuda::refuse(); }

}  // namespace regard::device
