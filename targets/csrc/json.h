/* json.h - reading values out of a JSON text in place. For run_model; not part of the public interface.
 *
 * A value is a pointer into a text that id_json_check has found to be whole; it stays valid as long as the text. */
#ifndef ID_JSON_H
#define ID_JSON_H

#include <stddef.h>

/* Whether `text`, which ends with a NUL at `length`, is one JSON value and nothing else. */
int id_json_check(const char *text, size_t length);

/* The value of a member of an object, by a key without escapes; NULL where it is no object or has none. `value` may be NULL. */
const char *id_json_member(const char *value, const char *key);

/* The number-th element of an array; NULL where it is no array or too short. `value` may be NULL. */
const char *id_json_item(const char *value, size_t number);

/* Whether it is a string of exactly these characters. */
int id_json_is(const char *value, const char *expected);

/* A string without escapes into a buffer of `room` bytes. Returns 0 where it is none or does not fit. */
int id_json_text(const char *value, char *buffer, size_t room);

/* A number. Returns 0 where it is none. */
int id_json_number(const char *value, double *number);

#endif /* ID_JSON_H */
