# find_package(inception_deploy CONFIG REQUIRED PATHS path/to/bundle NO_DEFAULT_PATH)
# target_link_libraries(program inception_deploy::model)          # model.so, or
# target_link_libraries(program inception_deploy::model_static)   # model.a: nothing but the weights is needed where it runs
#
# inception_deploy_WEIGHTS is the path of weights.bin.

if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(@PROCESSOR@)$")
  set(inception_deploy_FOUND FALSE)
  set(inception_deploy_NOT_FOUND_MESSAGE
      "the bundle in ${CMAKE_CURRENT_LIST_DIR} is for processors @PROCESSOR@, and CMAKE_SYSTEM_PROCESSOR is ${CMAKE_SYSTEM_PROCESSOR}")
  return()
endif()

set(inception_deploy_WEIGHTS "${CMAKE_CURRENT_LIST_DIR}/weights.bin")
if(NOT TARGET inception_deploy::model)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
  add_library(inception_deploy::model SHARED IMPORTED)
  set_target_properties(inception_deploy::model PROPERTIES
    IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/model.so"
    IMPORTED_SONAME model.so
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}")
  add_library(inception_deploy::model_static STATIC IMPORTED)
  set_target_properties(inception_deploy::model_static PROPERTIES
    IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/model.a"
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
endif()
