# A page's parts as a header: ${name}_parts.h holds k${prefix}Html, Css and Js.
macro(regard_page name prefix css js)
  set(parts ${CMAKE_CURRENT_BINARY_DIR}/generated/${name}_parts.h)
  string(REPLACE " " ";" page "${name}.html ${css} ${js}")
  list(TRANSFORM page PREPEND ${dir}/report/)
  add_custom_command(
    OUTPUT ${parts}
    COMMAND ${CMAKE_COMMAND} -DOUT=${parts} -DDIR=${dir}/report -DNAME=${prefix}
            -DHTML=${name}.html "-DCSS=${css}" "-DJS=${js}" -P ${dir}/report/embed.cmake
    DEPENDS ${page} ${dir}/report/embed.cmake
    COMMENT "Embedding the page of ${name}" VERBATIM)
  target_sources(${target} PRIVATE ${parts})
endmacro()

# regard_add_run(TARGET): the verbs that need a model. Without llama.cpp they are there and say
# why they cannot run.
function(regard_add_run target)
  set(dir ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  if(NOT REGARD_GGML)
    target_sources(${target} PRIVATE ${dir}/absent/run.cc)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/run*.cc ${dir}/frontier*.cc ${dir}/capture*.cc ${dir}/search*.cc
       ${dir}/journal.cc
       ${dir}/recall.cc)
  regard_page(report Report "report.css"
              "base.js run.js axes.js colours.js table.js plots.js maps.js density.js start.js")
  regard_page(frontier Frontier "report.css frontier.css"
              "base.js axes.js colours.js frontier-data.js frontier-plot.js frontier-recall.js \
frontier-planted.js frontier-table.js frontier-start.js")
  target_sources(${target} PRIVATE ${sources})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/generated
                                               ${PROJECT_SOURCE_DIR}/integrations/ggml)
  target_link_libraries(${target} PRIVATE llama ggml)
  add_dependencies(${target} ggml-regard)  # loaded at run time
endfunction()
