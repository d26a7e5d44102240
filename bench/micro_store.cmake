# micro-store: how long a partner file takes to load; not installed.
if(TARGET gw_store)
  set(store_tests "${CMAKE_CURRENT_LIST_DIR}/../tests/unit/store")
  add_executable(micro-store
    "${CMAKE_CURRENT_LIST_DIR}/micro_store.c"
    "${store_tests}/helper_records.c")
  target_include_directories(micro-store PRIVATE "${store_tests}")
  target_link_libraries(micro-store PRIVATE gw_store)
endif()
