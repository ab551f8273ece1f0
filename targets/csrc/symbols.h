/* symbols.h - functions of a library that is loaded at run time. Not public. */
#ifndef ID_SYMBOLS_H
#define ID_SYMBOLS_H

#include <dlfcn.h>
#include <string.h>

typedef void (*id_function)(void);

/* The function called `name`, NULL where there is none; POSIX lets an object pointer be one, ISO C wants the detour. */
static inline id_function id_look_up(void *library, const char *name) {
  id_function function;
  void *symbol = dlsym(library, name);
  memcpy(&function, &symbol, sizeof function);
  return function;
}

#endif /* ID_SYMBOLS_H */
