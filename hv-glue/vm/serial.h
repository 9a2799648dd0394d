/*
 * serial.h - a serial line: a 16550A at 0x3f8, interrupt 4.
 *
 * What the guest sends goes to a buffer that the main loop writes out; while that is full
 * the transmitter is busy, as a real one would be, and the guest waits rather than the
 * vcpu.  What comes in is read by the main loop as far as the receiver has room.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_SERIAL_H
#define VM_SERIAL_H

#include "vm/bus.h"
#include "vm/device.h"

struct serial;

enum { SERIAL_PORT = 0x3f8, SERIAL_IRQ = 4 };

struct serial_options {
        int in_fd;                      /* -1: none */
        int out_fd;                     /* -1: what is sent is lost */
        void (*set_irq)(void *opaque, bool level);      /* any thread */
        void *opaque;
};

/* On the main thread; free too. */
struct serial *serial_new(const struct serial_options *options, struct bus *ports);
struct device *serial_device(struct serial *serial);

/* Writes out what the guest has sent and the descriptor takes without delay. */
void serial_flush(struct serial *serial);

#endif
