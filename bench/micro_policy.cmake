# Costs of the policy on one core: micro_policy [PARTNERS ...]
if(TARGET gw_policy)
  add_executable(micro_policy "${CMAKE_CURRENT_LIST_DIR}/micro_policy.c")
  target_link_libraries(micro_policy PRIVATE gw_policy)
endif()
