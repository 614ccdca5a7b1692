# Brings llama.cpp in, unmodified: shared libraries ggml and llama, and on demand three programs of its
# parts: test-backend-ops (the judge of integrations/ggml), llama-bench and test-archs. Everything lands in build/bin.
#
# Inside a function so that nothing set for llama.cpp leaks into this project: its option() calls
# read these plain variables and so leave no BUILD_SHARED_LIBS in the cache.

set(REGARD_LLAMA_PINNED ${PROJECT_SOURCE_DIR}/build/deps/llama.cpp)

function(regard_add_llama dir)
  set(BUILD_SHARED_LIBS ON)
  set(CMAKE_CXX_STANDARD 17)
  set(LLAMA_BUILD_COMMON ON)  # only configured: built when llama-bench is asked for
  foreach(part TESTS TOOLS EXAMPLES SERVER APP UI)
    set(LLAMA_BUILD_${part} OFF)
  endforeach()
  set(LLAMA_OPENSSL OFF)
  set(LLAMA_TOOLS_INSTALL OFF)
  set(GGML_BACKEND_DL OFF)
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)
  # llama.cpp asks git for its commit; without its own .git it would be told this project's.
  set(outer "$ENV{GIT_CEILING_DIRECTORIES}")
  cmake_path(GET dir PARENT_PATH parent)
  set(ENV{GIT_CEILING_DIRECTORIES} "${parent}")
  add_subdirectory(${dir} ${CMAKE_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL SYSTEM)
  set(ENV{GIT_CEILING_DIRECTORIES} "${outer}")

  # Its suite for operators needs ggml only; linked as llama.cpp does, it would build 100 files more.
  add_executable(test-backend-ops EXCLUDE_FROM_ALL ${dir}/tests/test-backend-ops.cpp)
  target_link_libraries(test-backend-ops PRIVATE ggml)
  set(bench ${dir}/tools/llama-bench)
  add_executable(llama-bench EXCLUDE_FROM_ALL ${bench}/main.cpp ${bench}/llama-bench.cpp)
  target_link_libraries(llama-bench PRIVATE llama-common llama)
  set(tools test-backend-ops llama-bench)
  # Models of every architecture with random weights, for tests/models/archs.py.
  if(EXISTS ${dir}/tests/test-llama-archs.cpp)
    add_executable(test-archs EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/models/archs.cc)
    target_include_directories(test-archs SYSTEM PRIVATE ${dir}/tests ${dir}/src)
    target_link_libraries(test-archs PRIVATE llama-common llama)
    list(APPEND tools test-archs)
  endif()
  add_custom_target(test-tools DEPENDS ${tools})
  # Command lines and chat formats: half the time to compile, and nothing that is timed runs there.
  target_compile_options(llama-common PRIVATE -O0)
endfunction()

if(REGARD_LLAMA_CPP_DIR)
  get_filename_component(llama_dir "${REGARD_LLAMA_CPP_DIR}" ABSOLUTE)
else()
  set(llama_dir ${REGARD_LLAMA_PINNED})
endif()
if(NOT EXISTS ${llama_dir}/ggml/include/ggml-backend.h)
  message(FATAL_ERROR "no llama.cpp sources in ${llama_dir}: run tools/bootstrap.sh, or give a "
                      "checkout with -DREGARD_LLAMA_CPP_DIR=DIR, or do without: -DREGARD_GGML=OFF")
endif()
regard_add_llama(${llama_dir})
set(REGARD_LLAMA_DIR ${llama_dir})  # its internal headers, for integrations/ggml
set(REGARD_GGML_STAMP_DIR ${CMAKE_BINARY_DIR}/llama.cpp/ggml/src)  # ggml-version.h
