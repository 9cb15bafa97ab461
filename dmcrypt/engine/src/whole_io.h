/** pread(2), pwrite(2) and write(2) that go on until all is done. */
#ifndef FUSECRYPT_WHOLE_IO_H
#define FUSECRYPT_WHOLE_IO_H

#include <stddef.h>
#include <stdint.h>

/** @return 0; -ENODATA: the file ends before; or a negative errno */
int pread_whole(int fd, void *buf, size_t size, uint64_t offset);

/** @return 0 or a negative errno */
int pwrite_whole(int fd, const void *buf, size_t size, uint64_t offset);
int write_whole(int fd, const void *buf, size_t size);

#endif
