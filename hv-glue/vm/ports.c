/*
 * ports.c - the I/O ports by which a guest resets itself or powers off.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/ports.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "host/error.h"

enum {
        STATE_VERSION = 1,
        KEYBOARD_PORT = 0x64,
        KEYBOARD_STATUS = 0xfd,
        KEYBOARD_RESET = 0xfe,
        RESET_CPU = 1 << 2,
        POWER_PORT = 0xf4,
        PM_ENABLE = 2,                  /* in the event block, after the status */
        PM_SCI_ENABLED = 1 << 0,
        PM_SLEEP_ENABLE = 1 << 13,
        PM_SLEEP_TYPE_SHIFT = 10,
        PM_SLEEP_TYPE_MASK = 7,
};

struct ports {
        struct device device;
        struct ports_events events;
        uint16_t pm_enable;             /* read back, no more; atomic */
};

/* ---- Power management --------------------------------------------------------------------- */

/* Little-endian, of any width that the bus lets through. */
static void answer(void *bytes, unsigned count, uint64_t value)
{
        value = GUINT64_TO_LE(value);
        memcpy(bytes, &value, count);
}

static void read_event(void *opaque, uint64_t offset, void *bytes, unsigned count)
{
        struct ports *ports = opaque;
        uint64_t block = (uint64_t) __atomic_load_n(&ports->pm_enable, __ATOMIC_RELAXED)
                << 8 * PM_ENABLE;

        answer(bytes, count, block >> 8 * offset);
}

static void write_event(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        struct ports *ports = opaque;
        uint16_t value;

        if (offset != PM_ENABLE || count != sizeof(value))
                return;
        memcpy(&value, bytes, sizeof(value));
        __atomic_store_n(&ports->pm_enable, GUINT16_FROM_LE(value), __ATOMIC_RELAXED);
}

static void read_control(void *opaque, uint64_t offset, void *bytes, unsigned count)
{
        (void) opaque;
        answer(bytes, count, PM_SCI_ENABLED >> 8 * offset);
}

static void write_control(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        const struct ports *ports = opaque;
        uint16_t value;

        if (offset != 0 || count != sizeof(value))
                return;
        memcpy(&value, bytes, sizeof(value));
        value = GUINT16_FROM_LE(value);
        if (value & PM_SLEEP_ENABLE
            && (value >> PM_SLEEP_TYPE_SHIFT & PM_SLEEP_TYPE_MASK) == PORTS_SLEEP_OFF)
                ports->events.power_off(ports->events.opaque);
}

/* ---- The others --------------------------------------------------------------------------- */

static void read_keyboard(void *opaque, uint64_t offset, void *bytes, unsigned count)
{
        (void) opaque;
        (void) offset;
        memset(bytes, KEYBOARD_STATUS, count);
}

static void write_keyboard(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        const struct ports *ports = opaque;

        (void) offset;
        (void) count;
        if (*(const uint8_t *) bytes == KEYBOARD_RESET)
                ports->events.reset(ports->events.opaque);
}

static void read_zero(void *opaque, uint64_t offset, void *bytes, unsigned count)
{
        (void) opaque;
        (void) offset;
        memset(bytes, 0, count);
}

static void write_reset(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        const struct ports *ports = opaque;

        (void) offset;
        (void) count;
        if (*(const uint8_t *) bytes & RESET_CPU)
                ports->events.reset(ports->events.opaque);
}

static void write_power(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        const struct ports *ports = opaque;

        (void) offset;
        (void) bytes;
        (void) count;
        ports->events.power_off(ports->events.opaque);
}

/* ---- The machine's side ------------------------------------------------------------------- */

static void device_reset(struct device *device)
{
        ((struct ports *) device)->pm_enable = 0;
}

static int device_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        (void) err;
        state_put_u16(w, ((struct ports *) device)->pm_enable);
        return 0;
}

static int device_load(struct device *device, struct state_reader *r, uint32_t version,
                       bool apply, struct hvb_error *err)
{
        uint16_t pm_enable = state_get_u16(r);

        (void) version;
        if (state_reader_end(r) < 0)
                return error_set(err, -EINVAL, "not a state of power management");
        if (apply)
                ((struct ports *) device)->pm_enable = pm_enable;
        return 0;
}

static void device_free(struct device *device)
{
        g_free(device);
}

static const struct device_ops device_ops = {
        .name = "ports",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = device_reset,
        .save = device_save,
        .load = device_load,
        .free = device_free,
};

struct device *ports_new(const struct ports_events *events, struct bus *bus)
{
        struct ports *ports = g_new0(struct ports, 1);
        const struct bus_region regions[] = {
                { PORTS_PM_EVENT, PORTS_PM_EVENT_BYTES, ports, read_event, write_event },
                { PORTS_PM_CONTROL, PORTS_PM_CONTROL_BYTES, ports, read_control, write_control },
                { PORTS_RESET, 1, ports, read_zero, write_reset },
                { KEYBOARD_PORT, 1, ports, read_keyboard, write_keyboard },
                { POWER_PORT, 4, ports, read_zero, write_power },
        };

        ports->device.ops = &device_ops;
        ports->events = *events;
        for (unsigned i = 0; i < G_N_ELEMENTS(regions); i++)
                bus_add(bus, &regions[i]);
        return &ports->device;
}
