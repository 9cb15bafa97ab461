/** Start threads that the sandbox will find complete. */
#ifndef FUSECRYPT_THREAD_H
#define FUSECRYPT_THREAD_H

/** Start a detached thread and wait until it runs `run`.
 *
 * What a thread's start needs of the kernel (its name, robust lists, restartable sequences) is then behind
 * it, and a sandbox that forbids that may close. All signals are blocked in it.
 *
 * @param name at most 15 bytes
 * @return 0 or a negative errno
 */
int thread_start(const char *name, void *(*run)(void *arg), void *arg);

#endif
