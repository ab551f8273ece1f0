/* common.h - what a runtime for any device needs: the weights file, aligned memory, a clock, the processors. Not public. */
#ifndef ID_COMMON_H
#define ID_COMMON_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Map `bytes` of weights read-only, which begin `offset` into a file and, where `to_end` is set, end with it; and compare their size and
 * their tag with the compiled-in ones. `*data` is NULL where there are none. Returns an ID_ code. */
int id_map_weights(const char *path, uint64_t offset, int to_end, uint64_t bytes, uint64_t tag, const unsigned char **data);
void id_unmap_weights(const unsigned char *data, uint64_t offset, uint64_t bytes);

/* The content tag: the sum over the file's 8-byte little-endian words (the last one filled up with zeros) of mix(word ^ index * GOLDEN),
 * modulo 2**64. inception_deploy.targets.library.content_tag is the same in numpy. */
uint64_t id_content_tag(const unsigned char *data, uint64_t bytes);

/* Zeroed memory that starts at a multiple of 2 MiB and asks for huge pages: an inference walks all of it, and with 4 KiB pages it
 * would spend its time in page walks. NULL when there is none. */
void *id_allocate(uint64_t bytes);
void id_release(void *memory, uint64_t bytes);

/* Remember a sentence for id_detail, beside the code that is returned. */
__attribute__((format(printf, 1, 2))) void id_say(const char *format, ...);
void id_forget(void);

/* Who comes second sleeps for a little and looks again: for what is held for long, or hardly ever wanted by two. */
void id_lock(atomic_flag *flag);
void id_unlock(atomic_flag *flag);

/* Seconds of a clock that never goes back. */
double id_seconds(void);

/* How many processors the calling thread may run on; at least 1. */
uint32_t id_processors(void);

#endif /* ID_COMMON_H */
