// Makes writes and syncs of one database of a running server fail (see disk_faults.rs). The environment variable
// SWARMEDGE_IOFAIL names the control file. Loaded by LD_PRELOAD, so that the deployed binary is tested unchanged.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// The control file. `which` is the database: 1 the edge's spool, 2 the CN's spool, 3 the ledger. `seen` counts its
// operations; those from `after` up to (not including) `upto` fail with the errno `error` and are counted in `failed`.
static struct control {
  _Atomic uint64_t which, after, upto, error, seen, failed;
} *control;

static void __attribute__((constructor)) begin(void) {
  const char *path = getenv("SWARMEDGE_IOFAIL");
  int fd = path ? open(path, O_RDWR) : -1;
  if (fd < 0) return;
  void *at = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at != MAP_FAILED) control = at;
}

static int fails(int fd) {
  uint64_t which = control ? control->which : 0;
  if (!which) return 0;
  char link[64], path[512];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, sizeof path - 1);
  if (len < 0) return 0;
  path[len] = 0;
  static const char *const names[] = {"/edge/spool.redb", "/cn/spool.redb", "/ledger/ledger.sqlite"};
  if (which > 3 || !strstr(path, names[which - 1])) return 0;
  uint64_t n = control->seen++;
  if (n < control->after || n >= control->upto) return 0;
  control->failed++;
  errno = (int)control->error;
  return 1;
}

#define WRAP(type, name, args, pass)                            \
  type name args {                                              \
    static type(*real) args;                                    \
    if (!real) real = (type(*) args)dlsym(RTLD_NEXT, #name);    \
    return fails(fd) ? -1 : real pass;                          \
  }
WRAP(ssize_t, write, (int fd, const void *from, size_t len), (fd, from, len))
WRAP(ssize_t, pwrite, (int fd, const void *from, size_t len, off_t at), (fd, from, len, at))
WRAP(ssize_t, pwrite64, (int fd, const void *from, size_t len, off64_t at), (fd, from, len, at))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t len), (fd, len))
WRAP(int, ftruncate64, (int fd, off64_t len), (fd, len))
