/* vta_linked.c - where no library is loaded: the driver is the one that is linked in. */
#include "common.h"
#include "inception_deploy.h"
#include "vta_driver.h"

int id_vta_load(const char *library, vta_driver *driver) {
  (void)driver;
  id_say("the VTA's driver is a part of this program, and %s is not loaded", library);
  return ID_ERROR_DEVICE;
}
