/* program.h - what run_model is made of: its memory, the files beside it, and what it shows. Not part of the public interface. */
#ifndef ID_PROGRAM_H
#define ID_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "inception_deploy.h"

/* -- program.c ---------------------------------------------------------------------------------------------------- */

/* Say why on standard error, in one line, and end with a status. */
_Noreturn void id_stop(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Aligned as id_run wants it; ends the program where there is none. Given back with free. */
void *id_obtain(uint64_t bytes);

/* This program's file; "" where the system does not tell. */
const char *id_own_path(void);

/* A path beside this program's file, in memory of its own. */
char *id_beside(const char *name);

/* All of a text file, with a NUL behind; NULL and errno where it cannot be opened. */
char *id_text_of(const char *path, size_t *length);

/* Whether this program's file goes on for exactly `bytes` behind its own end, rounded up to pages; `*offset` is where. */
int id_weights_at_end(uint64_t bytes, uint64_t *offset);

/* -- report.c: the same as text for people or as members of a JSON object ----------------------------------------- */

void id_show_string(const char *text);
void id_show_times(double *ms, int runs, int threads, int json);

/* The best classes of every row of `values` (rows, classes). `names`: of the classes, or NULL; `rows`: of the rows, or NULL. */
void id_show_top(const id_port *port, const float *values, int most, int probabilities, char **names, const char **rows, int json);
void id_show_profile(const id_info *info, const double *seconds, int json);
void id_show_info(const id_info *info);

#endif /* ID_PROGRAM_H */
