// .npy and .safetensors: round trips, odd but legal files, and files that lie.
#include "io/io.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "regard/status.h"

namespace regard::io {
namespace {

namespace fs = std::filesystem;

class IoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/regard_io_XXXXXX";
    dir_ = ::mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::string put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  std::string bytes(const std::string& name) const {
    std::stringstream s;
    s << std::ifstream(path(name), std::ios::binary).rdbuf();
    return s.str();
  }
  // The message of the Error that `f` must throw; one line.
  template <class F>
  static std::string error(F f) {
    try {
      f();
    } catch (const Error& e) {
      const std::string what = e.what();
      EXPECT_EQ(what.find('\n'), what.npos) << what;
      return what;
    }
    ADD_FAILURE() << "no Error";
    return "";
  }
  std::string npy_error(const std::string& bytes) const {
    return error([&] { load_npy(put("x.npy", bytes)); });
  }
  std::string st_error(const std::string& bytes) const {
    return error([&] { load_safetensors(put("x.safetensors", bytes)); });
  }

  fs::path dir_;
};

Tensor counting(DType t, std::array<int64_t, 4> size) {
  Tensor x = make_tensor(t, size);
  std::vector<float> row(static_cast<size_t>(size[3]));
  float next = -3;
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c) {
        for (float& r : row) r = next += 0.5f;
        if (t == DType::i32) {
          for (int64_t d = 0; d < size[3]; ++d)
            reinterpret_cast<int32_t*>(x.view.at(a, b, c))[d] = int32_t(2 * row[size_t(d)]);
        } else {
          write_row(x.view, a, b, c, row.data());
        }
      }
  return x;
}

void expect_equal(const View& x, const View& y) {
  ASSERT_EQ(x.dtype, y.dtype);
  ASSERT_EQ(x.size, y.size);
  std::vector<double> a(size_t(x.size[3])), b(size_t(x.size[3]));
  for (int64_t i = 0; i < x.size[0]; ++i)
    for (int64_t j = 0; j < x.size[1]; ++j)
      for (int64_t k = 0; k < x.size[2]; ++k) {
        read_row(x, i, j, k, a.data());
        read_row(y, i, j, k, b.data());
        ASSERT_EQ(a, b) << i << ' ' << j << ' ' << k;
      }
}

std::string u64(uint64_t n) { return std::string(reinterpret_cast<const char*>(&n), 8); }
std::string st(const std::string& header, const std::string& data) {
  return u64(header.size()) + header + data;
}
std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string s = "\x93NUMPY";
  s += {version, char(0), char(header.size() & 255), char(header.size() >> 8)};
  if (version > 1) s += std::string(2, '\0');
  return s + header + data;
}
const std::string kNpy4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n";

// ---------------------------------------------------------------------------------------------

TEST_F(IoTest, RoundTripsEveryType) {
  for (const DType t : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i32}) {
    const Tensor x = counting(t, {2, 3, 5, 7});
    save_npy(path("a.npy"), x.view);
    expect_equal(load_npy(path("a.npy")).view, x.view);
    save_safetensors(path("a.safetensors"), {{"x", x.view}, {"y", x.view}}, {{"made", "here"}});
    const SafeTensors file = load_safetensors(path("a.safetensors"));
    expect_equal(file.at("x").view, x.view);
    expect_equal(file.at("y").view, x.view);
    EXPECT_EQ(file.metadata.at("made"), "here");
  }
}

TEST_F(IoTest, WritesStridedViewsAndFewerAxes) {
  const Tensor x = counting(DType::f32, {1, 3, 5, 7});
  View swapped = x.view;
  std::swap(swapped.size[1], swapped.size[2]);
  std::swap(swapped.stride[1], swapped.stride[2]);
  save_npy(path("a.npy"), swapped, 3);
  EXPECT_NE(bytes("a.npy").find("'shape': (5, 3, 7)"), std::string::npos);
  EXPECT_EQ(bytes("a.npy").find('\n') % 64, 63u);
  expect_equal(load_npy(path("a.npy")).view, swapped);
  save_safetensors(path("a.safetensors"), {{"x", swapped, 3}});
  EXPECT_NE(bytes("a.safetensors").find("\"shape\":[5,3,7]"), std::string::npos);
  EXPECT_NE(error([&] { save_npy(path("b.npy"), x.view, 2); }).find("2 axes"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("b.npy")));
}

TEST_F(IoTest, ColumnMajorIsAViewWithStrides) {
  const float data[] = {1, 2, 3, 4, 5, 6};  // [[1, 3, 5], [2, 4, 6]]
  const Tensor t =
      load_npy(put("f.npy", npy("{'shape': (2, 3), 'fortran_order': True, 'descr': '<f4'}",
                                std::string(reinterpret_cast<const char*>(data), sizeof data))));
  float row[3];
  read_row(t.view, 0, 0, 1, row);
  EXPECT_EQ(row[0], 2);
  EXPECT_EQ(row[2], 6);
}

TEST_F(IoTest, UnalignedDataOddHeaderAndLaterVersions) {
  const float data[] = {1, -2, 3, 4};
  const std::string raw(reinterpret_cast<const char*>(data), sizeof data);
  for (const char version : {1, 2, 3}) {
    const Tensor t = load_npy(put("u.npy", npy(kNpy4 + " ", raw, version)));
    EXPECT_EQ(static_cast<float*>(t.view.data)[1], -2);
  }
  const Tensor t =
      load_safetensors(
          put("u.safetensors",
              st("{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}} ", raw)))
          .at("x");
  EXPECT_EQ(static_cast<float*>(t.view.data)[3], 4);
  EXPECT_EQ(t.view.size, (std::array<int64_t, 4>{1, 1, 1, 4}));
}

TEST_F(IoTest, MasksLoadAsIntegers) {
  const Tensor b = load_npy(
      put("b.npy", npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", {1, 0, 1})));
  EXPECT_EQ(b.view.dtype, DType::i32);
  EXPECT_EQ(static_cast<int32_t*>(b.view.data)[2], 1);
  const std::string i64 = "{'descr': '<i8', 'fortran_order': False, 'shape': ()}";
  EXPECT_EQ(*static_cast<int32_t*>(load_npy(put("i.npy", npy(i64, u64(~0ull)))).view.data), -1);
  EXPECT_NE(npy_error(npy(i64, u64(1ull << 31))).find("2147483648 does not fit"),
            std::string::npos);
}

TEST_F(IoTest, HostileNpy) {
  const std::string raw(16, 'a');
  const auto header = [](const char* descr, const char* shape) {
    return std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': " + shape +
           "}";
  };
  EXPECT_NE(npy_error("").find("not a .npy"), std::string::npos);
  EXPECT_NE(npy_error("GIF89a, surely").find("not a .npy"), std::string::npos);
  EXPECT_NE(npy_error(npy(kNpy4, raw, 9)).find("version 9"), std::string::npos);
  EXPECT_NE(npy_error(npy(kNpy4, raw.substr(1))).find("15 bytes of data"), std::string::npos);
  EXPECT_NE(npy_error(npy(kNpy4, raw + "x")).find("17 bytes of data"), std::string::npos);
  EXPECT_NE(npy_error(npy(kNpy4, raw).substr(0, 30)).find("header of"), std::string::npos);
  EXPECT_NE(npy_error(npy(header(">f4", "(4,)"), raw)).find("'>f4'"), std::string::npos);
  EXPECT_NE(npy_error(npy(header("|O", "(4,)"), raw)).find("'|O'"), std::string::npos);
  EXPECT_NE(npy_error(npy(header("<f4", "(0, 4)"), "")).find("empty"), std::string::npos);
  EXPECT_NE(npy_error(npy(header("<f4", "(1,1,1,1,4)"), raw)).find("5 axes"), std::string::npos);
  // 2^62 * 4 bytes = 2^64 wraps to 0; 2^33 * 2^33 overflows by itself.
  for (const char* shape :
       {"(4611686018427387904,)", "(8589934592, 8589934592)", "(4611686018427387905, 4)"})
    EXPECT_NE(npy_error(npy(header("<f4", shape), raw)).find("does not fit"), std::string::npos);
  for (const char* shape : {"(-1,)", "(99999999999999999999999,)", "(4", "4", "(4;)", "(a,)"})
    EXPECT_NE(npy_error(npy(header("<f4", shape), raw)).find("bad header"), std::string::npos);
  EXPECT_NE(npy_error(npy("{'descr': [('a', '<f4')], 'shape': (4,)}", raw)).find("bad header"),
            std::string::npos);
  EXPECT_NE(npy_error(npy("{'descr': '<f4', 'shape': (4,)}", raw)).find("bad"), std::string::npos);
  EXPECT_NE(npy_error(npy("{'descr': '<f4\n', 'fortran_order': False, 'shape': (4,)}", raw))
                .find("'<f4?'"),
            std::string::npos);
}

TEST_F(IoTest, HostileSafetensors) {
  const std::string raw(16, 'a');
  const auto one = [](const std::string& type, const std::string& shape, const std::string& at) {
    return "{\"x\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":" + at +
           "}}";
  };
  const auto expect = [&](const std::string& bytes, const char* what) {
    const std::string e = st_error(bytes);
    EXPECT_NE(e.find(what), std::string::npos) << e;
  };
  expect("", "not a safetensors");
  expect("1234567", "not a safetensors");
  expect(u64(0), "header is not JSON");
  expect(u64(~0ull) + "{}", "header of 18446744073709551615");
  expect(u64(100'000'001) + "{}", "header of 100000001");
  expect(u64(50) + "{}", "header of 50 bytes in a file of 10");
  expect(st("[1, 2]", ""), "header is not JSON");
  expect(st("{\"x\":", ""), "header is not JSON");
  expect(st("{\"x\xff\":1}", ""), "header is not JSON");
  expect(st("{\"x\": 3}", raw), "expected {dtype");
  expect(st(one("F32", "[4]", "[0]"), raw), "expected {dtype");
  expect(st(one("F32", "[-4]", "[0,16]"), raw), "expected {dtype");
  expect(st(one("F32", "[4.0]", "[0,16]"), raw), "expected {dtype");
  expect(st(one("F32", "[1e30]", "[0,16]"), raw), "expected {dtype");
  expect(st(one("F32", "[[4]]", "[0,16]"), raw), "nested too deep");
  expect(st(one("F32", "[5]", "[0,16]"), raw), "does not fit its 16 bytes");
  expect(st(one("F32", "[4611686018427387908]", "[0,16]"), raw), "does not fit");
  expect(st(one("F32", "[8589934592,8589934592]", "[0,16]"), raw), "does not fit");
  expect(st(one("F32", "[4]", "[0,16]"), raw.substr(1)), "at most to 15");
  expect(st(one("F32", "[4]", "[0,16]"), raw + "x"), "17 bytes of data");
  expect(st(one("F32", "[4]", "[16,0]"), raw), "at bytes 16 to 0");
  expect(st(one("F32", "[4]", "[18446744073709551600,18446744073709551615]"), raw),
         "expected from");
  expect(st("{\"__metadata__\":{\"a\":1}}", ""), "__metadata__");
  const std::string entry = "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}";
  expect(st("{\"x\":" + entry + ",\"x\":" + entry + "}", raw.substr(8)), "'x' twice");
  expect(st("{\"x\":" + entry + ",\"y\":" + entry + "}", raw.substr(8)), "'y' at bytes 0 to 8");
  std::string list = "[1";
  for (int i = 0; i < 1000; ++i) list += ",1";
  expect(st(one("F32", list + "]", "[0,4]"), raw), "more than 64");
  expect(st(std::string(100000, '['), ""), "header is not JSON");
  expect(st("{\"x\":" + std::string(100000, '['), ""), "nested too deep");
}

TEST_F(IoTest, TensorsItCannotHoldAreSkippedWithTheReason) {
  const std::string header =
      "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]},"
      "\"b\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[4,5]},"
      "\"c\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[5,5]},"
      "\"d\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[5,9]}}";
  const std::string file = put("m.safetensors", st(header, std::string(9, '\1')));
  const SafeTensors t = load_safetensors(file);
  EXPECT_EQ(t.tensors.size(), 1u);
  EXPECT_NE(error([&] { t.at("a"); }).find("type F8_E4M3"), std::string::npos);
  EXPECT_NE(error([&] { t.at("b"); }).find("6 axes"), std::string::npos);
  EXPECT_NE(error([&] { t.at("c"); }).find("empty"), std::string::npos);
  EXPECT_NE(error([&] { t.at("q"); }).find("it holds a, b, c, d"), std::string::npos);
  EXPECT_NE(error([&] { load_tensor(file + "#b"); }).find("6 axes"), std::string::npos);
  EXPECT_TRUE(load_tensor(file + "#d"));
  EXPECT_TRUE(load_tensor(file));  // the only one it can hold
  EXPECT_NE(error([&] { load_tensor(path("x.bin")); }).find("accepted"), std::string::npos);
}

TEST_F(IoTest, WritesWholeFilesOrNone) {
  put("old", "old");
  EXPECT_THROW(write_file(path("old"),
                          [](const Sink& sink) {
                            sink("new", 3);
                            throw Error("half way");
                          }),
               Error);
  EXPECT_EQ(bytes("old"), "old");
  fs::create_symlink("old", path("link"));
  write_file(path("link"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(bytes("old"), "new");
  write_file("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_NE(error([&] { write_file(path("no/such/folder"), "x"); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(error([&] { write_file(dir_.string(), "x"); }).find("is a directory"),
            std::string::npos);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(dir_)) ++files;
  EXPECT_EQ(files, 2);  // old and link: no temporary left
}

TEST_F(IoTest, WhatIsNoFileIsRefused) {
  EXPECT_NE(error([&] { load_npy(path("none")); }).find("No such file"), std::string::npos);
  EXPECT_NE(error([&] { load_npy(dir_.string()); }).find("not a regular file"), std::string::npos);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_NE(error([&] { load_safetensors(path("pipe")); }).find("not a regular"),
            std::string::npos);
}

}  // namespace
}  // namespace regard::io
