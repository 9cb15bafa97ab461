/** The requests about keys that are forgotten and come again, and about the session. Run by threads that may wait. */
#ifndef FUSECRYPT_SESSION_REQUESTS_H
#define FUSECRYPT_SESSION_REQUESTS_H

#include "control.h"

void request_forget_key(struct request *r);
void request_renew_key(struct request *r);
void request_deny_key(struct request *r);

/** Answered when every key of the session before is gone. */
void request_bump_session(struct request *r);

#endif
