/* A GPU that is lost in the middle of a run: after LOST_AFTER launches one kernel is given addresses that are none, and the driver ends the
   process's context for good, as it does when a card falls off the bus.

       cc -shared -fPIC -O1 benches/gpu/lost.c -o lost.so
       LD_PRELOAD=./lost.so LOST_AFTER=20000 cascabel train models/digits.toml --device cuda --out runs

   Expected: one line that says what failed, exit code 2, and a checkpoint that the same call with --resume, without the library, goes on from. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*Launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
static Launch launch;
static long count;

static int counted(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                   void **params, void **extra)
{
    const char *after = getenv("LOST_AFTER");
    static unsigned long long nowhere[64];
    void *none[64];
    if (__atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) == (after ? atol(after) : 0)) {
        for (int i = 0; i < 64; i++) {
            /* As an address it is none and not even aligned; as a count it is not 0. */
            nowhere[i] = 0x7f00000fffffull;
            none[i] = &nowhere[i];
        }
        params = none;
        fprintf(stderr, "lost.so: launch %ld gets addresses that are none\n", count);
    }
    return launch(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}

void *dlsym(void *library, const char *name)
{
    static void *(*real)(void *, const char *);
    if (!real)
        real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real)
        real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    void *found = real(library, name);
    if (found && strcmp(name, "cuLaunchKernel") == 0 && !launch)
        launch = (Launch)found;
    return found && strcmp(name, "cuLaunchKernel") == 0 ? (void *)counted : found;
}
