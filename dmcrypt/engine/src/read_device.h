/** Reading a little of a device over the control socket: for an engine without a mount, which one command started.
 *
 * An engine that serves a mount refuses: its daemon gets no plaintext.
 */
#ifndef FUSECRYPT_READ_DEVICE_H
#define FUSECRYPT_READ_DEVICE_H

#include "control.h"

void read_device(struct request *r);

#endif
