# proof-relay: a TCP relay, the limit that bench/run.py compares with; not installed.
if(TARGET gw_net)
  add_executable(proof-relay "${CMAKE_CURRENT_LIST_DIR}/relay.c" "${CMAKE_CURRENT_LIST_DIR}/tool.c")
  target_include_directories(proof-relay PRIVATE "${CMAKE_CURRENT_LIST_DIR}")
  target_link_libraries(proof-relay PRIVATE gw_net)
endif()
