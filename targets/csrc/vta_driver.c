/* vta_driver.c - find a driver library and its functions. */
#include "vta_driver.h"

#include <dlfcn.h>
#include <string.h>

#include "common.h"
#include "inception_deploy.h"

typedef void (*any_function)(void);

/* The function called `name`; POSIX lets an object pointer be one, ISO C wants the detour. */
static any_function look_up(void *library, const char *name) {
  any_function function;
  void *symbol = dlsym(library, name);
  memcpy(&function, &symbol, sizeof function);
  return function;
}

int id_vta_load(const char *library, vta_driver *driver) {
  memset(driver, 0, sizeof *driver);
  void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!loaded) {
    const char *why = dlerror();
    id_say("the VTA's driver cannot be loaded: %s", why ? why : library);
    return ID_ERROR_DEVICE;
  }
  const char *missing = NULL;
#define ID_VTA_LOOK_UP(member, name, result, parameters)             \
  driver->member = (result(*) parameters)look_up(loaded, #name);    \
  if (!driver->member && !missing) missing = #name;
  ID_VTA_FUNCTIONS(ID_VTA_LOOK_UP)
#undef ID_VTA_LOOK_UP
  if (!missing) return ID_OK;
  id_say("the VTA's driver %s lacks %s", library, missing);
  dlclose(loaded);
  return ID_ERROR_DEVICE;
}
