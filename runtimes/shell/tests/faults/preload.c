// Makes calls of a running process fail, and shifts its wall clock, as a control file says (see preload.rs). The
// environment variable SWARMEDGE_PRELOAD names that file. Loaded by LD_PRELOAD, so that the deployed binary is tested
// unchanged. Calls that a program makes without the C library (rustix: rename without replacing, connect on smol) pass.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, OPEN = 8, SOCKET = 16 };

// The control file. Calls of the kinds in `calls`, on files whose path contains `path`, are counted in `seen`; those
// from `after` up to (not including) `upto` fail with the errno `error`, or write only half if it is 0, and are counted
// in `failed`. Wall clocks are wrong by `clock_ms`; their readings are then counted in `clock_reads`.
static struct control {
  _Atomic uint64_t calls, error, after, upto, seen, failed, clock_reads;
  _Atomic int64_t clock_ms;
  char path[448];
} *control;

static void __attribute__((constructor)) begin(void) {
  const char *path = getenv("SWARMEDGE_PRELOAD");
  int fd = path ? open(path, O_RDWR) : -1;
  if (fd < 0) return;
  void *at = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at != MAP_FAILED) control = at;
}

static int is_armed(uint64_t call) { return control && (control->calls & call); }

// Returns whether this call is one of those that fail.
static int is_hit(void) {
  uint64_t n = control->seen++;
  if (n < control->after || n >= control->upto) return 0;
  control->failed++;
  errno = (int)control->error;
  return 1;
}

static int path_hit(uint64_t call, const char *path) {
  return is_armed(call) && path && strstr(path, control->path) && is_hit();
}

static int fd_hit(uint64_t call, int fd) {
  if (!is_armed(call)) return 0;
  char link[64], path[512];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, sizeof path - 1);
  // sockets and pipes have no path
  if (len < 0 || path[0] != '/') return 0;
  path[len] = 0;
  return path_hit(call, path);
}

#define REAL(type, name, args) \
  static type(*real) args;     \
  if (!real) real = (type(*) args)dlsym(RTLD_NEXT, #name)

// A write of `len` bytes: fails, or is short.
#define WRITES(name, args, pass)                            \
  ssize_t name args {                                       \
    REAL(ssize_t, name, args);                              \
    if (len > 1 && fd_hit(WRITE, fd)) {                     \
      if (control->error) return -1;                        \
      len /= 2;                                             \
    }                                                       \
    return real pass;                                       \
  }
WRITES(write, (int fd, const void *from, size_t len), (fd, from, len))
WRITES(pwrite, (int fd, const void *from, size_t len, off_t at), (fd, from, len, at))
WRITES(pwrite64, (int fd, const void *from, size_t len, off64_t at), (fd, from, len, at))
WRITES(copy_file_range, (int from, off64_t *from_at, int fd, off64_t *at, size_t len, unsigned flags),
       (from, from_at, fd, at, len, flags))

ssize_t writev(int fd, const struct iovec *from, int count) {
  REAL(ssize_t, writev, (int, const struct iovec *, int));
  if (count > 0 && from[0].iov_len > 1 && fd_hit(WRITE, fd)) {
    if (control->error) return -1;
    struct iovec half = {from[0].iov_base, from[0].iov_len / 2};
    return real(fd, &half, 1);
  }
  return real(fd, from, count);
}

// A change of a file's length takes room as a write does, but is never short.
#define LENGTHENS(name, args, pass)                                             \
  int name args {                                                               \
    REAL(int, name, args);                                                      \
    return control && control->error && fd_hit(WRITE, fd) ? -1 : real pass;     \
  }
LENGTHENS(ftruncate, (int fd, off_t len), (fd, len))
LENGTHENS(ftruncate64, (int fd, off64_t len), (fd, len))
LENGTHENS(fallocate, (int fd, int mode, off_t at, off_t len), (fd, mode, at, len))
LENGTHENS(fallocate64, (int fd, int mode, off64_t at, off64_t len), (fd, mode, at, len))

#define SYNCS(name)                               \
  int name(int fd) {                              \
    REAL(int, name, (int));                       \
    return fd_hit(SYNC, fd) ? -1 : real(fd);      \
  }
SYNCS(fsync)
SYNCS(fdatasync)

#define NAMES(name, args, pass)                       \
  int name args {                                     \
    REAL(int, name, args);                            \
    return path_hit(RENAME, to) ? -1 : real pass;     \
  }
NAMES(rename, (const char *from, const char *to), (from, to))
NAMES(renameat, (int dir, const char *from, int to_dir, const char *to), (dir, from, to_dir, to))
NAMES(renameat2, (int dir, const char *from, int to_dir, const char *to, unsigned flags),
      (dir, from, to_dir, to, flags))
NAMES(link, (const char *from, const char *to), (from, to))
NAMES(linkat, (int dir, const char *from, int to_dir, const char *to, int flags), (dir, from, to_dir, to, flags))

// A full disk refuses only files that are made.
static int open_hit(const char *path, int flags) {
  if (control && control->error == ENOSPC && !(flags & O_CREAT)) return 0;
  return path_hit(OPEN, path);
}
#define OPENS(name, args, last, pass)                                   \
  int name args {                                                       \
    REAL(int, name, args);                                              \
    mode_t mode = 0;                                                    \
    if (flags & (O_CREAT | __O_TMPFILE)) {                              \
      va_list more;                                                     \
      va_start(more, last);                                             \
      mode = va_arg(more, mode_t);                                      \
      va_end(more);                                                     \
    }                                                                   \
    return open_hit(path, flags) ? -1 : real pass;                      \
  }
OPENS(open, (const char *path, int flags, ...), flags, (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), flags, (path, flags, mode))
OPENS(openat, (int dir, const char *path, int flags, ...), flags, (dir, path, flags, mode))
OPENS(openat64, (int dir, const char *path, int flags, ...), flags, (dir, path, flags, mode))

#define SOCKETS(name, args, pass)                                   \
  int name args {                                                   \
    REAL(int, name, args);                                          \
    return is_armed(SOCKET) && is_hit() ? -1 : real pass;           \
  }
SOCKETS(socket, (int domain, int type, int protocol), (domain, type, protocol))
SOCKETS(accept, (int fd, struct sockaddr *from, socklen_t *len), (fd, from, len))
SOCKETS(accept4, (int fd, struct sockaddr *from, socklen_t *len, int flags), (fd, from, len, flags))

// Returns by how many milliseconds wall clocks are wrong now.
static int64_t wrong_by_ms(void) {
  int64_t by = control ? control->clock_ms : 0;
  if (by) control->clock_reads++;
  return by;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(int, clock_gettime, (clockid_t, struct timespec *));
  int failed = real(clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += wrong_by_ms() / 1000;
  return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  REAL(int, gettimeofday, (struct timeval *restrict, void *restrict));
  int failed = real(now, zone);
  if (!failed) now->tv_sec += wrong_by_ms() / 1000;
  return failed;
}
time_t time(time_t *at) {
  REAL(time_t, time, (time_t *));
  time_t now = real(0) + wrong_by_ms() / 1000;
  if (at) *at = now;
  return now;
}
