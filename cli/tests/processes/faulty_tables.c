/*
 * Lets writes and syncs of RocksDB's own files fail, or take long: those below a broker's `tables-…`, which do not go through the
 * product's disk seam. For tests of real processes; laid over libc with LD_PRELOAD. Never part of what users get.
 *
 * FAULTY_TABLES names a file. While it is there, each of its lines says what goes wrong:
 *
 *     write eio        write enospc        sync eio        sync delay_ms 1000
 *
 * Each time that something goes wrong, a byte is added to the file of that name with `.struck` behind it. What RocksDB writes down
 * for people (LOG) fails too, and is not counted.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char *const TABLES = "/tables-";

/* Through system calls: what is called here by name would end up here again. */
static ssize_t plan(char *text, size_t size) {
    const char *path = getenv("FAULTY_TABLES");
    if (path == NULL) {
        return -1;
    }
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    ssize_t length = syscall(SYS_read, fd, text, size - 1);
    syscall(SYS_close, fd);
    text[length < 0 ? 0 : length] = '\0';
    return length;
}

/* The name behind `tables-…/`, or NULL if the file is none of them. */
static const char *name_in_tables(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) {
        return NULL;
    }
    path[length] = '\0';
    const char *tables = strstr(path, TABLES);
    if (tables == NULL) {
        return NULL;
    }
    const char *name = strchr(tables + 1, '/');
    return name == NULL ? "" : name + 1;
}

static void count(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s.struck", getenv("FAULTY_TABLES"));
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0644);
    if (fd >= 0) {
        syscall(SYS_write, fd, ".", 1);
        syscall(SYS_close, fd);
    }
}

static void wait_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* What becomes of an operation: 0, or the error that it fails with. Waits here if it is to take long. */
static int struck(const char *operation, int fd) {
    char text[256], path[4096], *rest = text, *line;
    int before = errno, error = 0;
    const char *name = NULL;
    if (plan(text, sizeof text) > 0) {
        name = name_in_tables(fd, path, sizeof path);
    }
    while (name != NULL && (line = strsep(&rest, "\n")) != NULL) {
        char planned[16], how[16];
        long ms = 0;
        if (sscanf(line, "%15s %15s %ld", planned, how, &ms) < 2 || strcmp(planned, operation) != 0) {
            continue;
        }
        if (strcmp(how, "eio") == 0) {
            error = EIO;
        } else if (strcmp(how, "enospc") == 0) {
            error = ENOSPC;
        }
        wait_ms(ms);
        if (strncmp(name, "LOG", 3) != 0) {
            count();
        }
    }
    errno = before;
    return error;
}

#define UNLESS_STRUCK(operation, fd, call)                                                                                 \
    int error = struck(operation, fd);                                                                                     \
    if (error != 0) {                                                                                                      \
        errno = error;                                                                                                     \
        return -1;                                                                                                         \
    }                                                                                                                      \
    return call

ssize_t write(int fd, const void *bytes, size_t length) {
    UNLESS_STRUCK("write", fd, syscall(SYS_write, fd, bytes, length));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t position) {
    UNLESS_STRUCK("write", fd, syscall(SYS_pwrite64, fd, bytes, length, position));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t position) {
    UNLESS_STRUCK("write", fd, syscall(SYS_pwrite64, fd, bytes, length, position));
}

int fallocate(int fd, int mode, off_t position, off_t length) {
    UNLESS_STRUCK("write", fd, (int)syscall(SYS_fallocate, fd, mode, position, length));
}

int fallocate64(int fd, int mode, off64_t position, off64_t length) {
    UNLESS_STRUCK("write", fd, (int)syscall(SYS_fallocate, fd, mode, position, length));
}

int fsync(int fd) {
    UNLESS_STRUCK("sync", fd, (int)syscall(SYS_fsync, fd));
}

int fdatasync(int fd) {
    UNLESS_STRUCK("sync", fd, (int)syscall(SYS_fdatasync, fd));
}

int sync_file_range(int fd, off64_t position, off64_t length, unsigned int flags) {
    UNLESS_STRUCK("sync", fd, (int)syscall(SYS_sync_file_range, fd, position, length, flags));
}
