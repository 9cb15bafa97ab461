/** The requests about devices: from a message to device_table.h and back. Run by threads that may wait. */
#ifndef FUSECRYPT_DEVICE_REQUESTS_H
#define FUSECRYPT_DEVICE_REQUESTS_H

#include "control.h"

void request_add_device(struct request *r);
void request_load_table(struct request *r);

/** REMOVE_DEVICE, SUSPEND, RESUME, REFRESH and FLUSH: a node and flags. */
void request_change_device(struct request *r);
void request_rekey_device(struct request *r);
void request_resize_device(struct request *r);

#endif
