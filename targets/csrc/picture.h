/* picture.h - pictures of PPM and PGM files as a network wants them. For run_model; not part of the public interface. */
#ifndef ID_PICTURE_H
#define ID_PICTURE_H

#include <stdint.h>
#include <stdio.h>

/* 8-bit pixels, row by row, the channels of a pixel together. */
typedef struct id_picture {
  uint32_t width, height, channels; /* 1 or 3 */
  unsigned char *pixels;            /* from malloc */
} id_picture;

/* How a picture becomes an input: inception_deploy.runtime.preprocessing.Preprocessing. */
typedef struct id_preparation {
  int filter;                     /* ID_FILTER_... */
  uint32_t resize, rows, columns; /* the shorter side; the crop */
  uint32_t channels;              /* 1 for grey */
  int reversed;                   /* B, G, R */
  int interleaved;                /* (H, W, C) */
  int floats;                     /* or bytes, as they are */
  float times, over;              /* the scale */
  float mean[3], std[3];
} id_preparation;

enum { ID_FILTER_NEAREST, ID_FILTER_BILINEAR, ID_FILTER_BICUBIC, ID_FILTER_LANCZOS };

/* What `manifest.json` says of pictures, from its whole text. NULL where that works, else what is wrong. */
const char *id_preparation_read(id_preparation *how, const char *manifest);

/* Bytes of a prepared picture. */
uint64_t id_prepared_bytes(const id_preparation *how);

/* Whether the file starts as a picture does; it is at its start before and afterwards. */
int id_is_picture(FILE *file);

/* What to do with a file that starts as a picture of a kind that is not read; NULL of any other. */
const char *id_other_picture(FILE *file);

/* Read a picture. NULL where that works, else what is wrong. */
const char *id_picture_read(id_picture *picture, FILE *file);

/* Every step of the preparation, in the network's own numbers, into `id_prepared_bytes`. Each pixel and each number is the one that
 * Pillow and numpy give. NULL where that works, else what is wrong. */
const char *id_prepare(const id_preparation *how, const id_picture *picture, void *input);

#endif /* ID_PICTURE_H */
