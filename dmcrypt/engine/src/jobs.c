#include "jobs.h"

#include <errno.h>
#include <stdlib.h>

#include "registers.h"
#include "thread.h"

struct start {
    struct pool *pool;
    unsigned index;
};

static void *work(void *arg)
{
    struct start start = *(struct start *)arg;
    struct pool *pool = start.pool;

    free(arg);
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        while (pool->first == NULL)
            pthread_cond_wait(&pool->wake, &pool->lock);
        struct job *job = pool->first;
        pool->first = job->next;
        if (pool->first == NULL)
            pool->last = &pool->first;
        pthread_mutex_unlock(&pool->lock);
        job->run(job->arg, start.index);
        wipe_registers();
        free(job);
    }
    return NULL;
}

int pool_start(struct pool *pool, const char *name, unsigned threads)
{
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->first = NULL;
    pool->last = &pool->first;
    for (unsigned i = 0; i < threads; i++) {
        struct start *start = calloc(1, sizeof *start);
        if (start == NULL)
            return -ENOMEM;
        start->pool = pool;
        start->index = i;
        int rc = thread_start(name, work, start);
        if (rc != 0) {
            free(start);
            return rc;
        }
    }
    return 0;
}

int pool_submit(struct pool *pool, job_fn run, void *arg)
{
    struct job *job = malloc(sizeof *job);

    if (job == NULL)
        return -ENOMEM;
    *job = (struct job){ .next = NULL, .run = run, .arg = arg };
    pthread_mutex_lock(&pool->lock);
    *pool->last = job;
    pool->last = &job->next;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}
