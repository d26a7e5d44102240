# micro-cidr: what an address look-up, a change and a byte of the allowlists cost; not installed.
if(TARGET gw_policy)
  set(policy_tests "${CMAKE_CURRENT_LIST_DIR}/../tests/unit/policy")
  add_executable(micro-cidr
    "${CMAKE_CURRENT_LIST_DIR}/micro_cidr.c"
    "${CMAKE_CURRENT_LIST_DIR}/patricia.c"
    "${policy_tests}/helper_prefixes.c")
  target_include_directories(micro-cidr PRIVATE "${policy_tests}" "${CMAKE_CURRENT_LIST_DIR}")
  target_link_libraries(micro-cidr PRIVATE gw_policy)
endif()
