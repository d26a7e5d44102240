# What `cmake --install` puts where.
install(FILES conf/gateway.yaml conf/quickstart.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
# The operator's file is never written over: a running gateway would take the example over at once.
install(CODE "
  set(folder \"${CMAKE_INSTALL_FULL_SYSCONFDIR}/proofgw\")
  if(NOT EXISTS \"\$ENV{DESTDIR}\${folder}/gateway.yaml\")
    file(INSTALL \"${CMAKE_SOURCE_DIR}/conf/gateway.yaml\" DESTINATION \"\${folder}\")
  endif()")
install(FILES deploy/prometheus/proofgw.rules.yml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL FILES_MATCHING PATTERN "*.md")
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(FILES "${CMAKE_BINARY_DIR}/generated/proofgw.8" DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)

# systemd looks into lib, never into a multiarch folder.
configure_file("${CMAKE_SOURCE_DIR}/deploy/systemd/proofgw.service.in" "${CMAKE_BINARY_DIR}/generated/proofgw.service" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/generated/proofgw.service" DESTINATION lib/systemd/system)
install(FILES deploy/systemd/proofgw.conf DESTINATION lib/sysusers.d)
