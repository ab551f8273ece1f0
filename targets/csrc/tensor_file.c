/* tensor_file.c - a network's arrays in files: .npy, or the bare bytes. */
#include "tensor_file.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define ALIGNED 64 /* where the data of a .npy file begin */

static char said[512];

static const char *const kinds[][2] = {
    {"float32", "<f4"}, {"float64", "<f8"}, {"float16", "<f2"}, {"uint8", "|u1"}, {"int8", "|i1"},
    {"int16", "<i2"},   {"int32", "<i4"},   {"int64", "<i8"},   {"bool", "|b1"},
};

/* numpy's code of a port's type; "" where it has none. */
static const char *code_of(const char *dtype) {
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i)
    if (strcmp(kinds[i][0], dtype) == 0) return kinds[i][1];
  return "";
}

/* The value of a key of the header, a Python dictionary of literals. */
static const char *value_of(const char *header, const char *key) {
  char quoted[32];
  snprintf(quoted, sizeof quoted, "'%s':", key);
  const char *at = strstr(header, quoted);
  if (!at) return "";
  at += strlen(quoted);
  return at + strspn(at, " ");
}

static int shape_fits(const char *text, const id_port *port) {
  if (*text++ != '(') return 0;
  for (uint32_t axis = 0; axis < port->axes; ++axis) {
    char *end;
    text += strspn(text, " ,");
    if (!isdigit((unsigned char)*text) || strtoll(text, &end, 10) != port->shape[axis]) return 0;
    text = end;
  }
  return text[strspn(text, " ,")] == ')';
}

static void write_shape(const id_port *port, char *text, size_t room) {
  size_t used = (size_t)snprintf(text, room, "(");
  for (uint32_t axis = 0; axis < port->axes && used < room; ++axis)
    used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, axis ? ", " : "", port->shape[axis]);
  if (used < room) snprintf(text + used, room - used, "%s)", port->axes == 1 ? "," : "");
}

static const char *read_header(const id_port *port, FILE *file) {
  unsigned char start[12];
  static char header[4096];
  char shape[256];
  if (fread(start, 1, 10, file) != 10) return "is a .npy file that is cut short";
  size_t length = start[8] | (size_t)start[9] << 8;
  if (start[6] > 1) {
    if (fread(start + 10, 1, 2, file) != 2) return "is a .npy file that is cut short";
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  }
  if (length >= sizeof header || fread(header, 1, length, file) != length) return "is a .npy file with a damaged header";
  header[length] = 0;
  const char *descr = value_of(header, "descr"), *code = code_of(port->dtype);
  const int typed = *code && *descr == '\'' && strncmp(descr + 1, code, 3) == 0 && descr[4] == '\'';
  if (typed && strncmp(value_of(header, "fortran_order"), "False", 5) == 0 && shape_fits(value_of(header, "shape"), port))
    return NULL;
  write_shape(port, shape, sizeof shape);
  const char *got = value_of(header, "shape");
  const int descr_length = (int)strcspn(descr, ","), got_length = (int)strcspn(got, ")") + 1;
  snprintf(said, sizeof said, "holds %.*s of shape %.*s; input %.64s is %s %s in C's order", descr_length < 20 ? descr_length : 20,
           descr, got_length < 100 ? got_length : 100, got, port->name, port->dtype, shape);
  return said;
}

const char *id_tensor_read(const id_port *port, void *data, FILE *file) {
  char start[6];
  const int npy = fread(start, 1, sizeof start, file) == sizeof start && memcmp(start, MAGIC, sizeof start) == 0;
  rewind(file);
  const char *wrong = npy ? read_header(port, file) : NULL;
  if (wrong) return wrong;
  if (fread(data, 1, (size_t)port->bytes, file) == port->bytes && fgetc(file) == EOF) return NULL;
  snprintf(said, sizeof said, "has the wrong size: input %.64s takes %" PRIu64 " bytes of %s%s", port->name, port->bytes,
           port->dtype, npy ? "" : ", a .npy file of them, or a PPM or PGM picture");
  return said;
}

int id_tensor_write(const id_port *port, const void *data, const char *path) {
  char shape[512], header[1024];
  write_shape(port, shape, sizeof shape);
  const int length =
      snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", code_of(port->dtype), shape);
  const size_t whole = (10 + (size_t)length + 1 + ALIGNED - 1) / ALIGNED * ALIGNED, padded = whole - 10;
  FILE *file = fopen(path, "wb");
  if (!file) return 0;
  const unsigned char start[10] = {
      0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
  int good = fwrite(start, 1, sizeof start, file) == sizeof start;
  good = good && fprintf(file, "%-*s\n", (int)padded - 1, header) == (int)padded;
  good = good && fwrite(data, 1, (size_t)port->bytes, file) == port->bytes;
  return !fclose(file) && good;
}
