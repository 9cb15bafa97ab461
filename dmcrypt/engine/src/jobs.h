/** Threads that take jobs in turn, made before the sandbox closes and never ended. */
#ifndef FUSECRYPT_JOBS_H
#define FUSECRYPT_JOBS_H

#include <pthread.h>

/** Run by one of the pool's threads; `thread` is its index below the pool's size. */
typedef void (*job_fn)(void *arg, unsigned thread);

struct job {
    struct job *next;
    job_fn run;
    void *arg;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first, **last;
};

/** Start `threads` threads called `name` (at most 15 bytes). @return 0 or a negative errno */
int pool_start(struct pool *pool, const char *name, unsigned threads);

/** Queue a job. It is done even if all threads are busy now, in order of arrival. @return 0 or -ENOMEM */
int pool_submit(struct pool *pool, job_fn run, void *arg);

#endif
