#include "worker_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "arena.h"
#include "registers.h"
#include "thread.h"

#define QUEUE_MAX 64u
#define THREADS_MAX 64u

static struct {
    pthread_mutex_t lock;
    pthread_cond_t queued; /* a job came */
    pthread_cond_t idle;   /* the last running job ended */
    unsigned threads;
    unsigned jobs, running;
    struct {
        gcry_kdf_job_fn_t run;
        void *argument;
    } queue[QUEUE_MAX];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .queued = PTHREAD_COND_INITIALIZER,
          .idle = PTHREAD_COND_INITIALIZER};

/* Run one job. The lock is held before and after; there is a job. */
static void run_one(void)
{
    unsigned i = --pool.jobs;
    gcry_kdf_job_fn_t run = pool.queue[i].run;
    void *argument = pool.queue[i].argument;
    pool.running++;
    pthread_mutex_unlock(&pool.lock);
    run(argument);
    wipe_stack();
    wipe_registers();
    pthread_mutex_lock(&pool.lock);
    if (--pool.running == 0 && pool.jobs == 0)
        pthread_cond_broadcast(&pool.idle);
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.jobs == 0)
            pthread_cond_wait(&pool.queued, &pool.lock);
        run_one();
    }
    return NULL;
}

static int dispatch(void *unused, gcry_kdf_job_fn_t run, void *argument)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    bool queued = pool.threads > 0 && pool.jobs < QUEUE_MAX;
    if (queued) {
        pool.queue[pool.jobs].run = run;
        pool.queue[pool.jobs++].argument = argument;
        pthread_cond_signal(&pool.queued);
    }
    pthread_mutex_unlock(&pool.lock);
    if (!queued)
        run(argument);
    return 0;
}

static int wait_all(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    while (pool.jobs > 0 || pool.running > 0) {
        if (pool.jobs > 0)
            run_one();
        else
            pthread_cond_wait(&pool.idle, &pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return 0;
}

const gcry_kdf_thread_ops_t WORKER_POOL_OPS = {NULL, dispatch, wait_all};

int worker_pool_start(unsigned count)
{
    int rc = 0;

    if (count > THREADS_MAX)
        return -EINVAL;
    while (pool.threads < count && rc == 0) {
        rc = thread_start("argon2", work, NULL);
        pool.threads += rc == 0;
    }
    return rc;
}
