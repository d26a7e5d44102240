# Costs of the policy on one core: micro-policy [PARTNERS ...]
if(TARGET gw_policy)
  add_executable(micro-policy "${CMAKE_CURRENT_LIST_DIR}/micro_policy.c")
  target_link_libraries(micro-policy PRIVATE gw_policy)
endif()
