/* cuda_driver.c - find the driver library. */
#include "cuda_driver.h"

#include <string.h>

#include "inception_deploy.h"
#include "symbols.h"

int id_cuda_load(cu_driver *driver) {
  memset(driver, 0, sizeof *driver);
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return ID_ERROR_DEVICE;
  int missing = 0;
#define ID_CUDA_LOOK_UP(member, name, parameters)             \
  driver->member = (int(*) parameters)id_look_up(library, name); \
  missing |= !driver->member;
  ID_CUDA_FUNCTIONS(ID_CUDA_LOOK_UP)
#undef ID_CUDA_LOOK_UP
  return !missing && driver->init(0) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}
