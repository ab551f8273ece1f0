/* cuda_driver.c - find the driver library, and say what its functions fail with. */
#include "cuda_driver.h"

#include <string.h>

#include "common.h"
#include "inception_deploy.h"
#include "symbols.h"

const cu_names id_cuda_names = {
#define ID_CUDA_NAME(member, name, parameters) .member = name,
    ID_CUDA_FUNCTIONS(ID_CUDA_NAME) ID_CUDA_LATER_FUNCTIONS(ID_CUDA_NAME)
#undef ID_CUDA_NAME
};

int id_cuda_told(const cu_driver *driver, const char *function, int code) {
  if (code == CU_SUCCESS || id_detail(NULL, 0)) return code;
  const char *name = NULL;
  const int unknown = driver->error_name(code, &name) != CU_SUCCESS || !name;
  id_say("%s: %s (%d)", function, unknown ? "an error without a name" : name, code);
  return code;
}

int id_cuda_load(cu_driver *driver) {
  memset(driver, 0, sizeof *driver);
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    id_say("there is no NVIDIA driver (libcuda.so.1)");
    return ID_ERROR_DEVICE;
  }
  const char *missing = NULL;
#define ID_CUDA_LOOK_UP(member, name, parameters) driver->member = (int(*) parameters)id_look_up(library, name);
#define ID_CUDA_NEED(member, name, parameters) \
  if (!driver->member && !missing) missing = name;
  ID_CUDA_FUNCTIONS(ID_CUDA_LOOK_UP)
  ID_CUDA_LATER_FUNCTIONS(ID_CUDA_LOOK_UP)
  ID_CUDA_FUNCTIONS(ID_CUDA_NEED)
#undef ID_CUDA_NEED
#undef ID_CUDA_LOOK_UP
  if (missing) {
    id_say("the NVIDIA driver lacks %s: it is older than 525", missing);
    return ID_ERROR_DEVICE;
  }
  return ID_CUDA(driver, init, 0) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}
