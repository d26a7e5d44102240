# micro-snapshot: how long a snapshot takes to write and to load; not installed.
if(TARGET gw_store)
  set(store_tests "${CMAKE_CURRENT_LIST_DIR}/../tests/unit/store")
  add_executable(micro-snapshot
    "${CMAKE_CURRENT_LIST_DIR}/micro_snapshot.c"
    "${store_tests}/helper_records.c")
  target_include_directories(micro-snapshot PRIVATE "${store_tests}")
  target_link_libraries(micro-snapshot PRIVATE gw_store)
endif()
