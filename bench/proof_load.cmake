# proof-load: the load generator of bench/run.py and tests/e2e; not installed.
if(TARGET gw_http AND TARGET gw_net)
  add_executable(proof-load
    "${CMAKE_CURRENT_LIST_DIR}/proof_load.c"
    "${CMAKE_CURRENT_LIST_DIR}/tool.c"
    "${CMAKE_CURRENT_LIST_DIR}/load/client.c"
    "${CMAKE_CURRENT_LIST_DIR}/load/histogram.c"
    "${CMAKE_CURRENT_LIST_DIR}/load/load.c"
    "${CMAKE_CURRENT_LIST_DIR}/load/secure.c"
    "${CMAKE_CURRENT_LIST_DIR}/load/wording.c")
  target_include_directories(proof-load PRIVATE "${CMAKE_CURRENT_LIST_DIR}")
  target_link_libraries(proof-load PRIVATE gw_http gw_net OpenSSL::SSL)
endif()
