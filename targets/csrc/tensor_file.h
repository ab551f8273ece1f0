/* tensor_file.h - a network's arrays in files. For run_model; not part of the public interface. */
#ifndef ID_TENSOR_FILE_H
#define ID_TENSOR_FILE_H

#include <stdio.h>

#include "inception_deploy.h"

/* Fill the array of a port from a .npy file of its shape and type, or from exactly its bytes. NULL where that works, else what is wrong;
 * the text lasts until the next call. */
const char *id_tensor_read(const id_port *port, void *data, FILE *file);

/* Write it as .npy. 0 where that fails: errno. */
int id_tensor_write(const id_port *port, const void *data, const char *path);

#endif /* ID_TENSOR_FILE_H */
