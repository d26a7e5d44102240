# micro-request: what the steps of one request cost, one by one; not installed.
if(TARGET gw_http AND TARGET gw_policy)
  add_executable(micro-request "${CMAKE_CURRENT_LIST_DIR}/micro_request.c")
  target_link_libraries(micro-request PRIVATE gw_http gw_policy)
endif()
