# The version and the commit that `proofgw --version` prints.
find_package(Git QUIET)
set(GW_COMMIT "unknown")
if(GIT_FOUND)
  execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --short=12 HEAD
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(GW_COMMIT "${commit}")
  endif()
endif()
configure_file("${CMAKE_CURRENT_LIST_DIR}/gw_version.h.in" "${CMAKE_BINARY_DIR}/generated/gw_version.h" @ONLY)
add_library(gw_version INTERFACE)
target_include_directories(gw_version INTERFACE "${CMAKE_BINARY_DIR}/generated")
