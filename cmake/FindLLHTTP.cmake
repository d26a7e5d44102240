# Finds llhttp >= 8.1 and provides the target LLHTTP::llhttp. Looks, in this order, at
#
#   LLHTTP_SOURCE_DIR     when set: llhttp.c in DIR or DIR/src, llhttp.h in DIR or DIR/include; nothing else is tried
#   the CMake package     `llhttp` (Debian 13, Fedora, brew); asked for without a version, because 9.2.1 ships no
#                         version file
#   pkg-config            `libllhttp`
#   installed sources     /usr/share/llhttp (Debian 12, package node-llhttp), compiled in
#   LLHTTP_FETCH=ON       the release pinned below, downloaded and compiled in; only when asked for
#
# llhttp 8 decides strictness when it is compiled and its header leaves it off. Sources compiled in get
# LLHTTP_STRICT_MODE=1, and whatever was found must pass cmake/llhttp_probe.c before the build goes on.
# Sets LLHTTP_FOUND, LLHTTP_VERSION and LLHTTP_ORIGIN (where it came from, for people).
if(TARGET LLHTTP::llhttp)
  return()
endif()
include(FindPackageHandleStandardArgs)

set(LLHTTP_SOURCE_DIR "" CACHE PATH "llhttp sources to compile in, instead of an installed llhttp")
option(LLHTTP_FETCH "Download the pinned llhttp release when none is installed" OFF)
set(LLHTTP_FETCH_VERSION 9.4.3)
set(LLHTTP_FETCH_SHA256 1eb813c7437b31a87496a1cd3ed79f00746720f5e7e29c79b42c02cb69f36c39)

set(LLHTTP_ORIGIN "")
set(llhttp_sources "") # not empty: compile these

# Wraps an imported target of somebody else.
macro(llhttp_wrap target origin)
  add_library(LLHTTP::llhttp INTERFACE IMPORTED)
  set_property(TARGET LLHTTP::llhttp PROPERTY INTERFACE_LINK_LIBRARIES ${target})
  get_target_property(llhttp_include_hints ${target} INTERFACE_INCLUDE_DIRECTORIES)
  find_path(LLHTTP_INCLUDE_DIR llhttp.h HINTS ${llhttp_include_hints} NO_CACHE)
  set(LLHTTP_ORIGIN "${origin}")
endmacro()

# Looks for the three sources and the header below the given folders.
macro(llhttp_look_for_sources source_hints include_hints)
  find_path(LLHTTP_SOURCES llhttp.c PATHS ${source_hints} NO_DEFAULT_PATH NO_CACHE)
  find_path(LLHTTP_INCLUDE_DIR llhttp.h PATHS ${include_hints} NO_DEFAULT_PATH NO_CACHE)
  if(LLHTTP_SOURCES AND LLHTTP_INCLUDE_DIR)
    set(llhttp_sources "${LLHTTP_SOURCES}/api.c" "${LLHTTP_SOURCES}/http.c" "${LLHTTP_SOURCES}/llhttp.c")
    set(LLHTTP_ORIGIN "sources in ${LLHTTP_SOURCES}")
  endif()
endmacro()

if(LLHTTP_SOURCE_DIR)
  llhttp_look_for_sources("${LLHTTP_SOURCE_DIR};${LLHTTP_SOURCE_DIR}/src"
    "${LLHTTP_SOURCE_DIR};${LLHTTP_SOURCE_DIR}/include")
else()
  find_package(llhttp CONFIG QUIET)
  foreach(candidate llhttp::llhttp_static llhttp::llhttp_shared llhttp::llhttp)
    if(TARGET ${candidate} AND NOT LLHTTP_ORIGIN)
      llhttp_wrap(${candidate} "CMake package in ${llhttp_DIR}")
    endif()
  endforeach()

  find_package(PkgConfig QUIET)
  if(NOT LLHTTP_ORIGIN AND PKG_CONFIG_FOUND)
    pkg_check_modules(LLHTTP_PC QUIET IMPORTED_TARGET libllhttp)
    if(LLHTTP_PC_FOUND)
      llhttp_wrap(PkgConfig::LLHTTP_PC "pkg-config libllhttp ${LLHTTP_PC_VERSION}")
    endif()
  endif()

  if(NOT LLHTTP_ORIGIN)
    llhttp_look_for_sources("/usr/share/llhttp;/usr/local/share/llhttp"
      "/usr/share/include/llhttp;/usr/local/share/include/llhttp")
  endif()

  if(NOT LLHTTP_ORIGIN AND LLHTTP_FETCH)
    include(FetchContent)
    if(POLICY CMP0135)
      cmake_policy(SET CMP0135 NEW)
    endif()
    # The release's own CMakeLists.txt is not used (it asks for a newer CMake): SOURCE_SUBDIR names a folder that
    # has none, so the files are only unpacked.
    FetchContent_Declare(llhttp_release SOURCE_SUBDIR none
      URL "https://github.com/nodejs/llhttp/archive/refs/tags/release/v${LLHTTP_FETCH_VERSION}.tar.gz"
      URL_HASH "SHA256=${LLHTTP_FETCH_SHA256}")
    FetchContent_MakeAvailable(llhttp_release)
    llhttp_look_for_sources("${llhttp_release_SOURCE_DIR}/src" "${llhttp_release_SOURCE_DIR}/include")
  endif()
endif()

if(llhttp_sources)
  add_library(llhttp_strict STATIC ${llhttp_sources})
  target_include_directories(llhttp_strict SYSTEM PUBLIC "${LLHTTP_INCLUDE_DIR}")
  target_compile_definitions(llhttp_strict PUBLIC LLHTTP_STRICT_MODE=1)
  # Our hardening, sanitizers and fuzzing instrumentation apply to it; our warnings do not.
  if(TARGET gw_options)
    target_link_libraries(llhttp_strict PRIVATE gw_options)
  endif()
  target_compile_options(llhttp_strict PRIVATE -w)
  set_property(TARGET llhttp_strict PROPERTY POSITION_INDEPENDENT_CODE ON)
  add_library(LLHTTP::llhttp ALIAS llhttp_strict)
endif()

# The version, from the header that will be compiled against.
set(LLHTTP_VERSION "")
if(LLHTTP_INCLUDE_DIR AND EXISTS "${LLHTTP_INCLUDE_DIR}/llhttp.h")
  file(STRINGS "${LLHTTP_INCLUDE_DIR}/llhttp.h" llhttp_version_lines
    REGEX "^#define LLHTTP_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
  string(REGEX MATCHALL "[0-9]+" LLHTTP_VERSION "${llhttp_version_lines}")
  string(REPLACE ";" "." LLHTTP_VERSION "${LLHTTP_VERSION}")
endif()

# Builds and runs the probe; once per llhttp, not at every configure.
function(llhttp_check_strict)
  set(key "${LLHTTP_VERSION} ${LLHTTP_ORIGIN}")
  if(CMAKE_CROSSCOMPILING OR LLHTTP_STRICT_CHECKED STREQUAL key)
    return()
  endif()
  set(program "${CMAKE_BINARY_DIR}/CMakeFiles/llhttp_probe${CMAKE_EXECUTABLE_SUFFIX}")
  set(probe "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/llhttp_probe.c")
  if(llhttp_sources)
    try_compile(built "${CMAKE_BINARY_DIR}/CMakeFiles/llhttp_probe_build" SOURCES "${probe}" ${llhttp_sources}
      CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${LLHTTP_INCLUDE_DIR}" COMPILE_DEFINITIONS -DLLHTTP_STRICT_MODE=1 -w
      OUTPUT_VARIABLE output COPY_FILE "${program}")
  else()
    try_compile(built "${CMAKE_BINARY_DIR}/CMakeFiles/llhttp_probe_build" SOURCES "${probe}"
      CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${LLHTTP_INCLUDE_DIR}" LINK_LIBRARIES LLHTTP::llhttp
      OUTPUT_VARIABLE output COPY_FILE "${program}")
  endif()
  if(NOT built)
    message(FATAL_ERROR "llhttp (${LLHTTP_ORIGIN}) does not compile or link:\n${output}")
  endif()
  execute_process(COMMAND "${program}" RESULT_VARIABLE result ERROR_VARIABLE accepted)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "llhttp ${LLHTTP_VERSION} (${LLHTTP_ORIGIN}) is not strict:\n${accepted}"
      "Install llhttp 9.2 or newer, or give its sources with -DLLHTTP_SOURCE_DIR=DIR: they are compiled strictly.")
  endif()
  set(LLHTTP_STRICT_CHECKED "${key}" CACHE INTERNAL "The llhttp that passed cmake/llhttp_probe.c")
endfunction()

if(LLHTTP_ORIGIN AND LLHTTP_VERSION VERSION_LESS 8.1)
  set(LLHTTP_NOT_FOUND_MESSAGE "llhttp '${LLHTTP_VERSION}' (${LLHTTP_ORIGIN}) is older than 8.1")
  set(LLHTTP_ORIGIN "")
elseif(NOT LLHTTP_ORIGIN)
  set(LLHTTP_NOT_FOUND_MESSAGE "install node-llhttp (Debian 12), libllhttp-dev (Debian 13, Ubuntu) or llhttp-devel \
(Fedora), or set LLHTTP_SOURCE_DIR to its sources, or LLHTTP_FETCH=ON to download ${LLHTTP_FETCH_VERSION}")
endif()
find_package_handle_standard_args(LLHTTP REQUIRED_VARS LLHTTP_ORIGIN VERSION_VAR LLHTTP_VERSION
  REASON_FAILURE_MESSAGE "${LLHTTP_NOT_FOUND_MESSAGE}")
if(LLHTTP_FOUND)
  llhttp_check_strict()
endif()
