/* Counts the file operations below one folder and lets one of them, or all from it on, go wrong.

   Preloaded by LD_PRELOAD, it sees what Python does and what native code does, but for the renaming of a file that
   safetensors has written, which calls the kernel itself. It passes everything on until arm() is called, which every
   forked process does for itself. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault { NONE, KILL, KILL_HALFWAY, FULL, READ_ONLY };
enum { FREES, TAKES, WRITES }; /* what an operation does with space */

static char folder[PATH_MAX];
static enum fault fault;
static long number, count;
static int record = -1; /* gets a line an operation: its name, its path, and the inode of an open file */

/* Everything below `where` counts from now on; `at` is the number of the operation that the fault comes at. */
void arm(const char *where, enum fault what, long at, int descriptor) {
    strncpy(folder, where, sizeof folder - 1);
    fault = what, number = at, count = 0, record = descriptor;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int below(int at, const char *path, char *whole) {
    char link[64];
    size_t length = strlen(folder);
    ssize_t base = 0;
    if (!length || !path) return 0;
    if (path[0] != '/') {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        if ((base = readlink(link, whole, PATH_MAX - 1)) < 0) return 0;
        whole[base++] = '/';
    }
    snprintf(whole + base, PATH_MAX - base, "%s", path);
    if (base && !path[0]) whole[base - 1] = 0; /* the descriptor itself */
    return !strncmp(whole, folder, length) && (whole[length] == '/' || !whole[length]);
}

/* Counts an operation; what it fails with, or 0. */
static int meet(const char *name, const char *path, int file, int space) {
    int saved = errno;
    count++;
    if (fault == KILL && count == number) die();
    struct stat node = {0};
    if (file >= 0) fstat(file, &node);
    if (record >= 0) dprintf(record, "%s\t%s\t%lu\n", name, path, (unsigned long)node.st_ino);
    errno = saved;
    if (count < number || fault < FULL) return 0;
    return fault == READ_ONLY ? EROFS : space == FREES ? 0 : ENOSPC;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(error, failed) if (error) { errno = error; return failed; }
#define ON_PATH(name, space, at, path, parameters, values) \
    int name parameters { \
        char whole[PATH_MAX]; \
        int error = below(at, path, whole) ? meet(#name, whole, -1, space) : 0; \
        FAIL_IF(error, -1) \
        return NEXT(name) values; \
    }
/* What is flushed is only counted: these tests kill processes, never the machine. */
#define ON_FILE(name, space, file, parameters, values) \
    int name parameters { \
        char whole[PATH_MAX]; \
        int counts = below(file, "", whole), error = counts ? meet(#name, whole, file, space) : 0; \
        FAIL_IF(error, -1) \
        return counts && strstr(#name, "sync") ? 0 : NEXT(name) values; \
    }
/* At the fault the first half is written: a short write, as of a disk that fills up, or the last thing before a kill. */
#define ON_WRITE(name, to, length, parameters, values) \
    ssize_t name parameters { \
        char whole[PATH_MAX]; \
        int counts = below(to, "", whole), error = counts ? meet(#name, whole, to, WRITES) : 0; \
        if (counts && count == number && (fault == FULL || fault == KILL_HALFWAY) && length > 1) { \
            length /= 2; \
            ssize_t written = NEXT(name) values; \
            if (fault == KILL_HALFWAY) die(); \
            return written; \
        } \
        if (counts && count == number && fault == KILL_HALFWAY) die(); \
        FAIL_IF(error, -1) \
        return NEXT(name) values; \
    }
#define ON_OPEN(name, at, parameters, values) \
    int name parameters { \
        char whole[PATH_MAX]; \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = __OPEN_NEEDS_MODE(flags) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        int counts = (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && below(at, path, whole); \
        int is_new = counts && access(whole, F_OK); \
        int error = counts ? meet(#name, whole, -1, is_new ? TAKES : FREES) : 0; \
        FAIL_IF(error, -1) \
        return NEXT(name) values; \
    }
#define ON_FOPEN(name) \
    FILE *name(const char *path, const char *how) { \
        char whole[PATH_MAX]; \
        int counts = strpbrk(how, "wa+") && below(AT_FDCWD, path, whole); \
        int error = counts ? meet(#name, whole, -1, access(whole, F_OK) ? TAKES : FREES) : 0; \
        FAIL_IF(error, NULL) \
        return NEXT(name)(path, how); \
    }

ON_OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
ON_OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
ON_OPEN(openat, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
ON_OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
ON_FOPEN(fopen)
ON_FOPEN(fopen64)
ON_WRITE(write, file, length, (int file, const void *from, size_t length), (file, from, length))
ON_WRITE(pwrite, file, length, (int file, const void *from, size_t length, off_t at), (file, from, length, at))
ON_WRITE(pwrite64, file, length, (int file, const void *from, size_t length, off64_t at), (file, from, length, at))
ON_WRITE(writev, file, parts, (int file, const struct iovec *from, int parts), (file, from, parts))
ON_WRITE(copy_file_range, to, length,
         (int from, off64_t *at, int to, off64_t *into, size_t length, unsigned flags),
         (from, at, to, into, length, flags))
ssize_t sendfile(int, int, off_t *, size_t);
ssize_t sendfile64(int, int, off64_t *, size_t);
ON_WRITE(sendfile, to, length, (int to, int from, off_t *at, size_t length), (to, from, at, length))
ON_WRITE(sendfile64, to, length, (int to, int from, off64_t *at, size_t length), (to, from, at, length))
ON_FILE(fsync, TAKES, file, (int file), (file))
ON_FILE(fdatasync, TAKES, file, (int file), (file))
ON_FILE(ftruncate, FREES, file, (int file, off_t length), (file, length))
ON_FILE(ftruncate64, FREES, file, (int file, off64_t length), (file, length))
ON_FILE(fchmod, FREES, file, (int file, mode_t mode), (file, mode))
ON_PATH(truncate, FREES, AT_FDCWD, path, (const char *path, off_t length), (path, length))
ON_PATH(chmod, FREES, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdir, TAKES, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, TAKES, at, path, (int at, const char *path, mode_t mode), (at, path, mode))
ON_PATH(rmdir, FREES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(unlink, FREES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(unlinkat, FREES, at, path, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(rename, TAKES, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(renameat, TAKES, at, to, (int of, const char *from, int at, const char *to), (of, from, at, to))
ON_PATH(renameat2, TAKES, at, to,
        (int of, const char *from, int at, const char *to, unsigned flags), (of, from, at, to, flags))
ON_PATH(link, TAKES, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(symlink, TAKES, AT_FDCWD, to, (const char *from, const char *to), (from, to))
