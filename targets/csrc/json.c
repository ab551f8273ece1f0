/* json.c - reading values out of a JSON text in place. */
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values within values; deeper ones are refused, because each takes stack. */
#define MAX_DEPTH 64

static const char *blank(const char *at) { return at + strspn(at, " \t\r\n"); }

static const char *string_end(const char *at) { /* behind the closing quote; NULL where there is none */
  for (++at; *at != '"'; ++at) {
    if ((unsigned char)*at < 0x20) return NULL; /* the NUL at the end too */
    if (*at == '\\' && (unsigned char)*++at < 0x20) return NULL;
  }
  return at + 1;
}

static const char *digits(const char *at) {
  const size_t count = strspn(at, "0123456789");
  return count ? at + count : NULL;
}

static const char *number_end(const char *at) {
  at = digits(at + (*at == '-'));
  if (at && *at == '.') at = digits(at + 1);
  if (at && (*at == 'e' || *at == 'E')) at = digits(at + 1 + (at[1] == '+' || at[1] == '-'));
  return at;
}

/* Behind the value that starts at `at`; NULL where there is none. */
static const char *value_end(const char *at, int depth) {
  static const char *const words[] = {"true", "false", "null"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; ++i)
    if (strncmp(at, words[i], strlen(words[i])) == 0) return at + strlen(words[i]);
  if (*at == '"') return string_end(at);
  if (*at != '{' && *at != '[') return number_end(at);
  if (depth == 0) return NULL;
  const int object = *at == '{';
  const char last = object ? '}' : ']';
  at = blank(at + 1);
  if (*at == last) return at + 1;
  for (;;) {
    if (object) {
      if (*at != '"' || !(at = string_end(at)) || *(at = blank(at)) != ':') return NULL;
      at = blank(at + 1);
    }
    if (!(at = value_end(at, depth - 1))) return NULL;
    at = blank(at);
    if (*at == last) return at + 1;
    if (*at != ',') return NULL;
    at = blank(at + 1);
  }
}

int id_json_check(const char *text, size_t length) {
  const char *end = value_end(blank(text), MAX_DEPTH);
  return end && (size_t)(blank(end) - text) == length;
}

const char *id_json_member(const char *value, const char *key) {
  if (!value || *(value = blank(value)) != '{') return NULL;
  for (const char *at = blank(value + 1); *at == '"';) {
    const int found = id_json_is(at, key);
    at = blank(blank(string_end(at)) + 1);
    if (found) return at;
    at = blank(value_end(at, MAX_DEPTH));
    if (*at == ',') at = blank(at + 1);
  }
  return NULL;
}

const char *id_json_item(const char *value, size_t number) {
  if (!value || *(value = blank(value)) != '[') return NULL;
  for (const char *at = blank(value + 1); *at != ']';) {
    if (number-- == 0) return at;
    at = blank(value_end(at, MAX_DEPTH));
    if (*at == ',') at = blank(at + 1);
  }
  return NULL;
}

int id_json_is(const char *value, const char *expected) {
  const size_t length = strlen(expected);
  return value && *value == '"' && strncmp(value + 1, expected, length) == 0 && value[length + 1] == '"';
}

int id_json_text(const char *value, char *buffer, size_t room) {
  if (!value || *value != '"') return 0;
  const size_t length = (size_t)(string_end(value) - value) - 2;
  if (length >= room || memchr(value + 1, '\\', length)) return 0;
  memcpy(buffer, value + 1, length);
  buffer[length] = 0;
  return 1;
}

int id_json_number(const char *value, double *number) {
  if (!value || (*value != '-' && (*value < '0' || *value > '9'))) return 0;
  *number = strtod(value, NULL);
  return isfinite(*number);
}
