# Writes OUT, a header with the page's parts as string literals. cmake -DOUT=.. -DDIR=.. -P embed.cmake
set(text "// Generated from src/cli/report by embed.cmake.\n#pragma once\nnamespace regard::cli {\n")
foreach(part Html Css Js)
  string(TOLOWER ${part} ending)
  file(READ ${DIR}/report.${ending} body)
  string(APPEND text "inline constexpr char kReport${part}[] = R\"~regard~(${body})~regard~\";\n")
endforeach()
file(WRITE ${OUT} "${text}}  // namespace regard::cli\n")
