/** The requests that wait for suspended devices, and what device_table.c does with them. */
#ifndef FUSECRYPT_PARKED_H
#define FUSECRYPT_PARKED_H

#include "device_table.h"

/** All that waits for a device; with dev->lock held. */
struct parked *parked_take(struct device_table *t, struct device *dev);

/** Put a list behind another, which ends at `last`. @return where both end */
struct parked **parked_append(struct parked **last, struct parked *more);

/** CLOCK_MONOTONIC. */
uint64_t monotonic_milliseconds(void);

/** Free a list whose requests nobody waits for. */
void parked_free(struct parked *parked);

#endif
