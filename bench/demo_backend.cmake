# proof-demo-backend: a stand-in for Proof's backend (quickstart, tests, benchmarks).
if(TARGET gw_http AND TARGET gw_net)
  add_executable(proof-demo-backend
    "${CMAKE_CURRENT_LIST_DIR}/demo_backend.c"
    "${CMAKE_CURRENT_LIST_DIR}/tool.c"
    "${CMAKE_CURRENT_LIST_DIR}/demo/conn.c"
    "${CMAKE_CURRENT_LIST_DIR}/demo/routes.c"
    "${CMAKE_CURRENT_LIST_DIR}/demo/ws.c")
  target_include_directories(proof-demo-backend PRIVATE "${CMAKE_CURRENT_LIST_DIR}")
  target_link_libraries(proof-demo-backend PRIVATE gw_http gw_net PkgConfig::JANSSON)
  install(TARGETS proof-demo-backend RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
