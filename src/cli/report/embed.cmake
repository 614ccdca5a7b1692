# Writes OUT, a header with a page's parts as string literals k${NAME}Html, Css and Js.
# cmake -DOUT=.. -DDIR=.. -DNAME=Report -DHTML=report.html "-DCSS=report.css .." "-DJS=base.js .." -P
# embed.cmake
set(text "// Generated from src/cli/report by embed.cmake.\n#pragma once\nnamespace regard::cli {\n")
function(add part body)
  string(APPEND text
         "inline constexpr char k${NAME}${part}[] = R\"~regard~(${body})~regard~\";\n")
  set(text "${text}" PARENT_SCOPE)
endfunction()
function(join out files)
  separate_arguments(files)
  foreach(part IN LISTS files)
    file(READ ${DIR}/${part} body)
    string(APPEND all "${body}")
  endforeach()
  set(${out} "${all}" PARENT_SCOPE)
endfunction()
join(html "${HTML}")
join(css "${CSS}")
join(js "${JS}")
add(Html "${html}")
add(Css "${css}")
add(Js "${js}")
file(WRITE ${OUT} "${text}}  // namespace regard::cli\n")
