/* cuda_driver.c - find the driver library. */
#include "cuda_driver.h"

#include <dlfcn.h>
#include <string.h>

#include "inception_deploy.h"

typedef void (*any_function)(void);

/* The function called `name`; POSIX lets an object pointer be one, ISO C wants the detour. */
static any_function look_up(void *library, const char *name) {
  any_function function;
  void *symbol = dlsym(library, name);
  memcpy(&function, &symbol, sizeof function);
  return function;
}

int id_cuda_load(cu_driver *driver) {
  memset(driver, 0, sizeof *driver);
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return ID_ERROR_DEVICE;
  int missing = 0;
#define ID_CUDA_LOOK_UP(member, name, parameters)             \
  driver->member = (int(*) parameters)look_up(library, name); \
  missing |= !driver->member;
  ID_CUDA_FUNCTIONS(ID_CUDA_LOOK_UP)
#undef ID_CUDA_LOOK_UP
  return !missing && driver->init(0) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}
