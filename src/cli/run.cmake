# regard_add_run(TARGET): the verb `run`. Without llama.cpp it is there and says why it cannot run.
function(regard_add_run target)
  set(dir ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  if(NOT REGARD_GGML)
    target_sources(${target} PRIVATE ${dir}/absent/run.cc)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/run*.cc)
  set(parts ${CMAKE_CURRENT_BINARY_DIR}/generated/report_parts.h)
  set(js base.js table.js plots.js maps.js density.js start.js)
  list(TRANSFORM js PREPEND ${dir}/report/ OUTPUT_VARIABLE page)
  list(APPEND page ${dir}/report/report.html ${dir}/report/report.css)
  list(JOIN js " " js)
  add_custom_command(
    OUTPUT ${parts}
    COMMAND ${CMAKE_COMMAND} -DOUT=${parts} -DDIR=${dir}/report -DJS=${js} -P
            ${dir}/report/embed.cmake
    DEPENDS ${page} ${dir}/report/embed.cmake
    COMMENT "Embedding the report page" VERBATIM)
  target_sources(${target} PRIVATE ${sources} ${parts})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/generated
                                               ${PROJECT_SOURCE_DIR}/integrations/ggml)
  target_link_libraries(${target} PRIVATE llama ggml)
  add_dependencies(${target} ggml-regard)  # loaded at run time
endfunction()
