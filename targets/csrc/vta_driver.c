/* vta_driver.c - find a driver library and its functions. */
#include "vta_driver.h"

#include <string.h>

#include "common.h"
#include "inception_deploy.h"
#include "symbols.h"

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
  driver->member = (result(*) parameters)id_look_up(loaded, #name);    \
  if (!driver->member && !missing) missing = #name;
  ID_VTA_FUNCTIONS(ID_VTA_LOOK_UP)
#undef ID_VTA_LOOK_UP
  if (!missing) return ID_OK;
  id_say("the VTA's driver %s lacks %s", library, missing);
  dlclose(loaded);
  return ID_ERROR_DEVICE;
}
