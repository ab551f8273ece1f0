/* picture.c - pictures of PPM and PGM files as a network wants them.
 *
 * Resizing is Pillow's: coefficients in double, rounded to 22 bits behind the point; first along the rows, then along the columns, each
 * rounded to 8 bits. */
#include "picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define MAX_SIDE (1u << 15)
#define MAX_PIXELS (1u << 28)
#define BITS 22 /* of a coefficient, behind the point */
#define PI 3.14159265358979323846

static const char *const no_memory = "is too large for the memory";

/* -- the preparation ---------------------------------------------------------------------------------------------- */

/* "a/b" or "a", decimals of up to 15 digits, as the reduced fraction that a pixel is multiplied with. */
static int decimal(const char **at, uint64_t *top, uint64_t *bottom) {
  int seen = 0, behind = 0;
  *top = 0, *bottom = 1;
  for (;; ++*at) {
    if (**at == '.' && !behind) {
      behind = 1;
    } else if (**at >= '0' && **at <= '9') {
      if (++seen > 15) return 0;
      *top = *top * 10 + (uint64_t)(**at - '0');
      if (behind) *bottom *= 10;
    } else {
      break;
    }
  }
  while (*top % 10 == 0 && *bottom % 10 == 0) *top /= 10, *bottom /= 10;
  return *top > 0;
}

static int read_scale(const char *text, float *times, float *over) {
  uint64_t a, b, c = 1, d = 1;
  if (!decimal(&text, &a, &b)) return 0;
  if (*text == '/') {
    ++text;
    if (!decimal(&text, &c, &d)) return 0;
  }
  if (*text || a > UINT64_MAX / d || b > UINT64_MAX / c) return 0;
  const uint64_t top = a * d, bottom = b * c;
  uint64_t x = top, y = bottom;
  while (y) {
    const uint64_t rest = x % y;
    x = y, y = rest;
  }
  *times = (float)(top / x);
  *over = (float)(bottom / x);
  return 1;
}

static int read_size(const char *value, uint32_t *size) {
  double number;
  if (!id_json_number(value, &number) || !(number >= 1 && number <= MAX_SIDE)) return 0;
  *size = (uint32_t)number;
  return (double)*size == number;
}

const char *id_preparation_read(id_preparation *how, const char *manifest) {
  static const char *const filters[] = {"nearest", "bilinear", "bicubic", "lanczos"};
  const char *fields = id_json_member(manifest, "preprocessing");
  if (!fields || *fields != '{') return "the network's manifest.json does not say how pictures are prepared";
  memset(how, 0, sizeof *how);
  how->filter = -1;
  for (int i = 0; i < 4; ++i)
    if (id_json_is(id_json_member(fields, "interpolation"), filters[i])) how->filter = i;
  const char *color = id_json_member(fields, "color"), *crop = id_json_member(fields, "crop");
  how->reversed = id_json_is(color, "bgr");
  how->channels = id_json_is(color, "gray") ? 1 : 3;
  how->interleaved = id_json_is(id_json_member(fields, "layout"), "nhwc");
  how->floats = !id_json_is(id_json_member(fields, "dtype"), "uint8");
  int good = how->filter >= 0 && read_size(id_json_member(fields, "resize"), &how->resize);
  good &= read_size(id_json_item(crop, 0), &how->rows) && read_size(id_json_item(crop, 1), &how->columns);
  for (uint32_t c = 0; c < how->channels; ++c) {
    double mean = 0, std = 0;
    good &= id_json_number(id_json_item(id_json_member(fields, "mean"), c), &mean);
    good &= id_json_number(id_json_item(id_json_member(fields, "std"), c), &std) && std > 0;
    how->mean[c] = (float)mean, how->std[c] = (float)std;
  }
  char scale[64];
  good &= id_json_text(id_json_member(fields, "scale"), scale, sizeof scale) && read_scale(scale, &how->times, &how->over);
  return good ? NULL : "the field 'preprocessing' of manifest.json cannot be read";
}

uint64_t id_prepared_bytes(const id_preparation *how) {
  return (uint64_t)how->rows * how->columns * how->channels * (how->floats ? sizeof(float) : 1);
}

/* -- files -------------------------------------------------------------------------------------------------------- */

int id_is_picture(FILE *file) {
  char start[3] = {0};
  const size_t count = fread(start, 1, 3, file);
  rewind(file);
  return count == 3 && start[0] == 'P' && (start[1] == '5' || start[1] == '6') && strchr(" \t\r\n#", start[2]);
}

const char *id_other_picture(FILE *file) {
  unsigned char start[4] = {0};
  rewind(file);
  const size_t count = fread(start, 1, sizeof start, file);
  if (count == sizeof start && memcmp(start, "\xff\xd8\xff", 3) == 0) return "is a JPEG; djpeg makes a PPM of it, which is read";
  if (count == sizeof start && memcmp(start, "\x89PNG", 4) == 0) return "is a PNG; pngtopnm makes a PPM of it, which is read";
  return NULL;
}

static int next_number(FILE *file, uint32_t *number) { /* and the one character behind it */
  int c = fgetc(file);
  while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    else
      c = fgetc(file);
  }
  if (c < '0' || c > '9') return 0;
  for (*number = 0; c >= '0' && c <= '9' && *number < 1000000; c = fgetc(file)) *number = *number * 10 + (uint32_t)(c - '0');
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

const char *id_picture_read(id_picture *picture, FILE *file) {
  memset(picture, 0, sizeof *picture);
  uint32_t most = 0;
  picture->channels = (fgetc(file), fgetc(file) == '6') ? 3 : 1;
  if (!next_number(file, &picture->width) || !next_number(file, &picture->height) || !next_number(file, &most))
    return "has a damaged header; a PPM (P6) or PGM (P5) picture is taken";
  if (most != 255) return "does not have 8 bits a channel (a largest value of 255)";
  const uint64_t pixels = (uint64_t)picture->width * picture->height;
  if (pixels == 0 || pixels > MAX_PIXELS) return "has no pixels, or too many";
  const size_t bytes = (size_t)pixels * picture->channels;
  picture->pixels = malloc(bytes);
  if (!picture->pixels) return no_memory;
  if (fread(picture->pixels, 1, bytes, file) == bytes) return NULL;
  free(picture->pixels);
  picture->pixels = NULL;
  return "is cut short";
}

/* -- resizing ----------------------------------------------------------------------------------------------------- */

static double sinc(double x) { return x == 0.0 ? 1.0 : sin(x * PI) / (x * PI); }

static double filter(int kind, double x) {
  x = fabs(x);
  switch (kind) {
    case ID_FILTER_BILINEAR: return x < 1.0 ? 1.0 - x : 0.0;
    case ID_FILTER_BICUBIC: {
      const double a = -0.5;
      if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
      return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
    }
    default: return x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
  }
}

/* Of each new place along a side: the first old one that it is made of, how many, and their coefficients. */
typedef struct taps {
  uint32_t most, *first, *count;
  int32_t *weights; /* [new][most] */
} taps;

static void free_taps(taps *t) {
  free(t->first);
  free(t->count);
  free(t->weights);
}

static int make_taps(taps *t, int kind, uint32_t old, uint32_t new) {
  const double scale = (double)old / new, wide = scale < 1.0 ? 1.0 : scale;
  const double support = (kind == ID_FILTER_BILINEAR ? 1.0 : kind == ID_FILTER_BICUBIC ? 2.0 : 3.0) * wide;
  t->most = (uint32_t)ceil(support) * 2 + 1;
  t->first = calloc(new, sizeof *t->first);
  t->count = calloc(new, sizeof *t->count);
  t->weights = calloc((size_t)new * t->most, sizeof *t->weights);
  double *row = calloc(t->most, sizeof *row);
  const int good = t->first && t->count && t->weights && row;
  for (uint32_t i = 0; good && i < new; ++i) {
    const double centre = (i + 0.5) * scale;
    const double low = centre - support + 0.5, high = centre + support + 0.5;
    const uint32_t first = low < 0 ? 0 : (uint32_t)low, last = high > old ? old : (uint32_t)high;
    double sum = 0;
    for (uint32_t k = 0; k < last - first; ++k) sum += row[k] = filter(kind, ((double)(k + first) - centre + 0.5) * (1.0 / wide));
    for (uint32_t k = 0; k < last - first; ++k) {
      const double weight = sum != 0.0 ? row[k] / sum : row[k];
      t->weights[(size_t)i * t->most + k] = (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (1 << BITS));
    }
    t->first[i] = first, t->count[i] = last - first;
  }
  free(row);
  return good;
}

static unsigned char sum_of(const unsigned char *pixel, size_t step, const int32_t *weights, uint32_t count) {
  int32_t sum = 1 << (BITS - 1);
  for (uint32_t k = 0; k < count; ++k) sum += pixel[k * step] * weights[k];
  sum >>= BITS;
  return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static int nearest(id_picture *from, id_picture *to) {
  /* Pillow adds the steps up, so rounding adds up too. */
  const double x_step = (double)from->width / to->width, y_step = (double)from->height / to->height;
  uint32_t *columns = malloc(to->width * sizeof *columns);
  if (!columns) return 0;
  double x = 0.5 * x_step, y = 0.5 * y_step;
  for (uint32_t i = 0; i < to->width; ++i, x += x_step) columns[i] = x < from->width ? (uint32_t)x : from->width - 1;
  for (uint32_t j = 0; j < to->height; ++j, y += y_step) {
    const uint32_t row = y < from->height ? (uint32_t)y : from->height - 1;
    for (uint32_t i = 0; i < to->width; ++i)
      memcpy(to->pixels + ((size_t)j * to->width + i) * to->channels,
             from->pixels + ((size_t)row * from->width + columns[i]) * to->channels, to->channels);
  }
  free(columns);
  return 1;
}

static int smooth(int kind, const id_picture *from, id_picture *to, int sideways) {
  const size_t channels = to->channels, step = sideways ? channels : channels * to->width;
  taps t = {0};
  const int good = sideways ? make_taps(&t, kind, from->width, to->width) : make_taps(&t, kind, from->height, to->height);
  for (uint32_t y = 0; good && y < to->height; ++y)
    for (uint32_t x = 0; x < to->width; ++x) {
      const uint32_t place = sideways ? x : y;
      const size_t row = sideways ? y : t.first[y], column = sideways ? t.first[x] : x;
      const unsigned char *pixel = from->pixels + (row * from->width + column) * channels;
      for (size_t c = 0; c < channels; ++c)
        to->pixels[((size_t)y * to->width + x) * channels + c] =
            sum_of(pixel + c, step, t.weights + (size_t)place * t.most, t.count[place]);
    }
  free_taps(&t);
  return good;
}

/* To another width or, of smooth filters, another height; in place. */
static int pass(id_picture *picture, int kind, uint32_t width, uint32_t height) {
  id_picture to = {width, height, picture->channels, malloc((size_t)width * height * picture->channels)};
  const int sideways = width != picture->width;
  if (!to.pixels || !(kind == ID_FILTER_NEAREST ? nearest(picture, &to) : smooth(kind, picture, &to, sideways))) {
    free(to.pixels);
    return 0;
  }
  free(picture->pixels);
  *picture = to;
  return 1;
}

static int resize(id_picture *picture, int kind, uint32_t width, uint32_t height) {
  if (width == picture->width && height == picture->height) return 1;
  if (kind == ID_FILTER_NEAREST) return pass(picture, kind, width, height);
  return (width == picture->width || pass(picture, kind, width, picture->height)) &&
         (height == picture->height || pass(picture, kind, width, height));
}

/* -- from pixels to numbers --------------------------------------------------------------------------------------- */

static int convert(const id_picture *from, id_picture *to, uint32_t channels) { /* RGB or grey, as the network has it */
  const size_t pixels = (size_t)from->width * from->height;
  *to = (id_picture){from->width, from->height, channels, malloc(pixels * channels)};
  if (!to->pixels) return 0;
  for (size_t i = 0; i < pixels; ++i) {
    const unsigned char *p = from->pixels + i * from->channels;
    for (uint32_t c = 0; c < channels; ++c)
      to->pixels[i * channels + c] = from->channels == channels ? p[c]
                                     : from->channels == 1
                                         ? p[0]
                                         : (unsigned char)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
  }
  return 1;
}

static int64_t half(int64_t n) { /* to the even number */
  const int64_t floor = n >= 0 ? n / 2 : -((1 - n) / 2);
  return n % 2 == 0 ? n / 2 : floor + (floor & 1);
}

static void normalise(const id_preparation *how, const id_picture *picture, void *input) {
  const int64_t top = half((int64_t)picture->height - how->rows), left = half((int64_t)picture->width - how->columns);
  const size_t plane = (size_t)how->rows * how->columns;
  for (uint32_t y = 0; y < how->rows; ++y)
    for (uint32_t x = 0; x < how->columns; ++x)
      for (uint32_t c = 0; c < how->channels; ++c) {
        const int64_t row = top + y, column = left + x;
        const int inside = row >= 0 && row < picture->height && column >= 0 && column < picture->width;
        const uint32_t channel = how->reversed ? how->channels - 1 - c : c;
        const size_t place = ((size_t)row * picture->width + (size_t)column) * picture->channels + channel;
        const unsigned char pixel = inside ? picture->pixels[place] : 0;
        const size_t to = (size_t)y * how->columns + x, index = how->interleaved ? to * how->channels + c : c * plane + to;
        if (how->floats)
          ((float *)input)[index] = ((float)pixel * how->times / how->over - how->mean[c]) / how->std[c];
        else
          ((unsigned char *)input)[index] = pixel;
      }
}

const char *id_prepare(const id_preparation *how, const id_picture *picture, void *input) {
  const uint64_t narrow = picture->width < picture->height ? picture->width : picture->height;
  const uint64_t width = picture->width * (uint64_t)how->resize / narrow, height = picture->height * (uint64_t)how->resize / narrow;
  if (width * height > MAX_PIXELS) return "is too long and narrow";
  id_picture own;
  if (!convert(picture, &own, how->channels)) return no_memory;
  const int good = resize(&own, how->filter, width ? (uint32_t)width : 1, height ? (uint32_t)height : 1);
  if (good) normalise(how, &own, input);
  free(own.pixels);
  return good ? NULL : no_memory;
}
