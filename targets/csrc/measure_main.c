/* measure_main.c - a trial as a program: trial THREADS PASSES prints the seconds of each sample of each pass, a line each. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "measure.h"

static any call(int (*function)(void *, const any *, int32_t, any *), int64_t argument) {
  any given = {ANY_INT, 0, {argument}}, result = {0, 0, {0}};
  function(NULL, &given, 1, &result);
  return result;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: trial THREADS PASSES\n");
    return 2;
  }
  for (int64_t pass = 0, passes = atoll(argv[2]); pass < passes; ++pass) {
    const int code = (int)call(__tvm_ffi_measure, atoll(argv[1])).value.integer;
    if (code != ID_OK) {
      const char *lacking = code == ID_ERROR_CPU ? id_missing_feature() : NULL;
      fprintf(stderr, "%s%s%s\n", id_error(code), lacking ? ": " : "", lacking ? lacking : "");
      return 1;
    }
    for (int64_t i = 0;; ++i) {
      const double seconds = call(__tvm_ffi_sample, i).value.real;
      if (seconds < 0) break;
      printf("%.9g\n", seconds);
    }
  }
  call(__tvm_ffi_finish, 0);
  return 0;
}
