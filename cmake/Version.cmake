# The version and the commit that `proofgw --version` prints. A commit or a checkout configures again.
find_package(Git QUIET)
set(GW_COMMIT "unknown")
if(GIT_FOUND)
  execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --short=12 HEAD
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(GW_COMMIT "${commit}")
    execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --git-path HEAD --git-path logs/HEAD
      WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" OUTPUT_VARIABLE heads OUTPUT_STRIP_TRAILING_WHITESPACE)
    string(REPLACE "\n" ";" heads "${heads}")
    foreach(head ${heads})
      get_filename_component(head "${head}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
      if(EXISTS "${head}")
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${head}")
      endif()
    endforeach()
  endif()
endif()
configure_file("${CMAKE_CURRENT_LIST_DIR}/gw_version.h.in" "${CMAKE_BINARY_DIR}/generated/gw_version.h" @ONLY)
configure_file("${CMAKE_CURRENT_SOURCE_DIR}/docs/proofgw.8.in" "${CMAKE_BINARY_DIR}/generated/proofgw.8" @ONLY)
add_library(gw_version INTERFACE)
target_include_directories(gw_version INTERFACE "${CMAKE_BINARY_DIR}/generated")
