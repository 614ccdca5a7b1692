// Plans of every method of the catalogue, made on the host, on the GPU: judged, and beside what the
// CPU makes of the same tensors. REGARD_PLANS names a folder that tests/catalogue/write_plans.py
// filled; each plan runs on tensors of its sizes.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "check.h"
#include "regard/method.h"

namespace regard {
namespace {

using namespace test;  // NOLINT

struct Row {
  int ran = 0;
  double from_cpu = 0;  // the largest difference between both outputs
  std::set<std::string> refusals;
};

class CudaMethods : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    if (!folder_) GTEST_SKIP() << "REGARD_PLANS names no folder of plans";
  }

  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> out;
    for (const auto& f : std::filesystem::directory_iterator(folder_)) out.push_back(f.path());
    std::sort(out.begin(), out.end());
    return out;
  }

  void run(const Plan& plan, Row* row) {
    const Problem& p = plan.problem;
    const Inputs3 x = inputs(p);
    const DeviceRun d(plan, x.q, x.k, x.v, DType::f32);
    if (!takes(plan, d.t)) {
      row->refusals.insert(why_);
      return;
    }
    attend(plan, d.t, options());
    const Tensor out = d.out();
    judge(plan, x, out, d.lse());
    const Tensor own = make_tensor(DType::f32, out.view.size);
    Out host;
    host.out = own.view;
    RunOptions cpu;
    cpu.impl = "cpu";
    attend(plan, x.q.view, x.k.view, x.v.view, host, cpu);
    const float *a = static_cast<const float*>(out.view.data),
                *b = static_cast<const float*>(own.view.data);
    for (int64_t n = 0; n < out.view.numel(); ++n)
      row->from_cpu = std::max(row->from_cpu, double(std::abs(a[n] - b[n])));
    ++row->ran;
  }

  const char* const folder_ = std::getenv("REGARD_PLANS");
};
INSTANTIATE_TEST_SUITE_P(Each, CudaMethods,
                         testing::Values(Kind{"cuda_sm90", DType::bf16},
                                         Kind{"cuda_sm90", DType::f16},
                                         Kind{"cuda_sm80", DType::bf16},
                                         Kind{"cuda_sm80", DType::f16}),
                         by_name);

TEST_P(CudaMethods, RunAsOnTheCpu) {
  std::map<std::string, Row> rows;
  for (const auto& file : files()) {
    std::ifstream in(file);
    std::stringstream text;
    text << in.rdbuf();
    SCOPED_TRACE(file.filename());
    const std::string name = file.filename().string();
    run(plan_from_json(text.str()), &rows[name.substr(0, name.find('.'))]);
  }
  for (const auto& [name, row] : rows) {
    std::cout << name << " | " << row.ran << " | " << row.from_cpu << " |";
    for (const std::string& why : row.refusals) std::cout << " " << why << ";";
    std::cout << "\n";
    EXPECT_TRUE(row.refusals.empty() || std::string(GetParam().impl) != "cuda_sm80")
        << name << ": what the CPU runs, the baseline runs";
  }
  for (const Record* r : methods())
    EXPECT_TRUE(rows.count(r->name)) << "no plan of " << r->name << " in " << folder_;
}

}  // namespace
}  // namespace regard
