# How everything is compiled: one interface target, linked by every floor.
option(GW_WERROR "Treat warnings as errors" ON)
option(GW_HARDENING "Hardening flags of a release (PIE, RELRO, stack protector, FORTIFY, CET)" OFF)
option(GW_FUZZ "Build the libFuzzer targets (clang only)" OFF)
option(GW_COVERAGE "Instrument for gcovr" OFF)
set(GW_PROFILE "" CACHE STRING "Profile of the branches taken (gcc): record or use one in this build folder; deploy/build.sh does both")
set(GW_SANITIZE "" CACHE STRING "Sanitizers, for example address,undefined or thread")

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # POSIX and GNU functions of the C library; the language itself stays C11
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(gw_options INTERFACE)
target_compile_definitions(gw_options INTERFACE _GNU_SOURCE)
target_compile_options(gw_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wvla
  $<$<BOOL:${GW_WERROR}>:-Werror> -fno-strict-aliasing -g)

# Link-time optimisation is for the programs: tests link the same objects without it, in a twentieth of the time.
if(CMAKE_INTERPROCEDURAL_OPTIMIZATION)
  target_compile_options(gw_options INTERFACE -ffat-lto-objects)
endif()

if(GW_HARDENING)
  target_compile_options(gw_options INTERFACE -fPIE -fstack-protector-strong -fstack-clash-protection
    -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(gw_options INTERFACE -fcf-protection=full)
  endif()
  target_link_options(gw_options INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack)
endif()
# What was not under load, such as proofctl, is compiled as it always is; so is what changed since.
if(GW_PROFILE)
  if(NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
    message(FATAL_ERROR "GW_PROFILE needs gcc; deploy/build.sh --plain does without a profile")
  elseif(GW_PROFILE STREQUAL "record")
    target_compile_options(gw_options INTERFACE -fprofile-generate -fprofile-update=atomic)
    target_link_options(gw_options INTERFACE -fprofile-generate)
  elseif(GW_PROFILE STREQUAL "use")
    target_compile_options(gw_options INTERFACE -fprofile-use -fprofile-partial-training -Wno-missing-profile
      -Wno-coverage-mismatch)
  else()
    message(FATAL_ERROR "GW_PROFILE is \"${GW_PROFILE}\"; it can be empty, record or use")
  endif()
endif()
if(GW_SANITIZE)
  target_compile_options(gw_options INTERFACE -fsanitize=${GW_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(gw_options INTERFACE -fsanitize=${GW_SANITIZE})
  if(GW_SANITIZE MATCHES "undefined")
    target_compile_options(gw_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
if(GW_FUZZ)
  target_compile_options(gw_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(GW_COVERAGE)
  target_compile_options(gw_options INTERFACE --coverage)
  target_link_options(gw_options INTERFACE --coverage)
endif()
