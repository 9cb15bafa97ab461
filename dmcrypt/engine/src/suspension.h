/** How a device comes to rest and goes on: what all changes of a device in use are made of. */
#ifndef FUSECRYPT_SUSPENSION_H
#define FUSECRYPT_SUSPENSION_H

#include <time.h>

#include "device_table.h"

/** Wait until only `holders` hold the device. @return whether it came to that before the deadline (NULL: for ever) */
bool device_drain(struct device_table *t, struct device *dev, uint64_t holders, const struct timespec *deadline);

/** With dev->lock held, of an active device: from here on new requests are parked, or with `fails` refused. */
void device_stop(struct device_table *t, struct device *dev, bool fails);

/** The same, if it is active. @return whether it was active */
bool device_begin_suspension(struct device_table *t, struct device *dev, bool fails);

/** With dev->lock held. @return what waited */
struct parked *device_end_suspension(struct device_table *t, struct device *dev);

#endif
