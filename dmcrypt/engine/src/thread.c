#include "thread.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>

/* Nothing here recurses or keeps large buffers on the stack. */
#define STACK_SIZE (256u << 10)

struct start {
    const char *name;
    void *(*run)(void *arg);
    void *arg;
    sem_t runs;
};

static void *begin(void *arg)
{
    struct start *start = arg;
    void *(*run)(void *) = start->run;
    void *run_arg = start->arg;

    prctl(PR_SET_NAME, start->name);
    sem_post(&start->runs); /* start is gone from here */
    return run(run_arg);
}

int thread_start(const char *name, void *(*run)(void *arg), void *arg)
{
    struct start start = { .name = name, .run = run, .arg = arg };
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;

    sem_init(&start.runs, 0, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, &attributes, begin, &start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    while (rc == 0 && sem_wait(&start.runs) != 0)
        ;
    sem_destroy(&start.runs);
    return -rc;
}
