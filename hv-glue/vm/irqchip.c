/*
 * irqchip.c - what KVM does in the kernel, as devices.
 *
 * The kernel's structs are saved as they are, each with its size in front.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/irqchip.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "host/error.h"

enum { STATE_VERSION = 1 };

static void put_blob(struct state_writer *w, const void *bytes, uint32_t count)
{
        state_put_u32(w, count);
        state_put_bytes(w, bytes, count);
}

static int get_blob(struct state_reader *r, void *bytes, uint32_t count)
{
        if (state_get_u32(r) != count)
                return -EINVAL;
        state_get_bytes(r, bytes, count);
        return 0;
}

/* ---- Interrupt controllers: two PICs and an IOAPIC ------------------------------------- */

struct irqchip {
        struct device device;
        const struct kvm *kvm;
        struct kvm_irqchip power_on[IRQCHIPS];
};

static int irqchip_read(const struct irqchip *chip, struct kvm_irqchip *ret_chips,
                        struct hvb_error *err)
{
        for (unsigned i = 0; i < IRQCHIPS; i++) {
                int ret;

                ret_chips[i] = (struct kvm_irqchip) { .chip_id = i };
                ret = kvm_ioctl(chip->kvm->vm_fd, KVM_GET_IRQCHIP, &ret_chips[i]);
                if (ret < 0)
                        return error_set(err, ret, "KVM does not give interrupt controller %u: "
                                         "%s", i, g_strerror(-ret));
        }
        return 0;
}

void irqchip_edges_fall(struct kvm_irqchip *chips)
{
        struct kvm_ioapic_state *ioapic = &chips[KVM_IRQCHIP_IOAPIC].chip.ioapic;

        for (unsigned i = KVM_IRQCHIP_PIC_MASTER; i <= KVM_IRQCHIP_PIC_SLAVE; i++)
                chips[i].chip.pic.last_irr &= chips[i].chip.pic.elcr;
        for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
                if (!ioapic->redirtbl[i].fields.trig_mode)
                        ioapic->irr &= ~(1u << i);
}

static int irqchip_apply(const struct irqchip *chip, const struct kvm_irqchip *chips,
                         struct hvb_error *err)
{
        for (unsigned i = 0; i < IRQCHIPS; i++) {
                struct kvm_irqchip copy = chips[i];
                int ret = kvm_ioctl(chip->kvm->vm_fd, KVM_SET_IRQCHIP, &copy);

                if (ret < 0)
                        return error_set(err, ret, "KVM refuses interrupt controller %u: %s", i,
                                         g_strerror(-ret));
        }
        return 0;
}

static void irqchip_reset(struct device *device)
{
        struct irqchip *chip = (struct irqchip *) device;
        struct hvb_error err = ERROR_INIT;

        if (irqchip_apply(chip, chip->power_on, &err) < 0)
                g_error("%s", err.text);
}

static int irqchip_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct kvm_irqchip chips[IRQCHIPS];
        int ret = irqchip_read((struct irqchip *) device, chips, err);

        for (unsigned i = 0; i < IRQCHIPS && ret == 0; i++)
                put_blob(w, &chips[i].chip, sizeof(chips[i].chip));
        return ret;
}

static int irqchip_load(struct device *device, struct state_reader *r, uint32_t version,
                        bool apply, struct hvb_error *err)
{
        struct kvm_irqchip chips[IRQCHIPS];

        (void) version;
        for (unsigned i = 0; i < IRQCHIPS; i++) {
                chips[i] = (struct kvm_irqchip) { .chip_id = i };
                if (get_blob(r, &chips[i].chip, sizeof(chips[i].chip)) < 0)
                        return error_set(err, -EINVAL, "interrupt controller %u has a state of "
                                         "another size", i);
        }
        if (state_reader_end(r) < 0)
                return error_set(err, -EINVAL, "the interrupt controllers' state is too short or "
                                 "too long");
        irqchip_edges_fall(chips);
        return apply ? irqchip_apply((struct irqchip *) device, chips, err) : 0;
}

static void plain_free(struct device *device)
{
        g_free(device);
}

static const struct device_ops irqchip_ops = {
        .name = "irqchip",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = irqchip_reset,
        .save = irqchip_save,
        .load = irqchip_load,
        .free = plain_free,
};

struct device *irqchip_new(const struct kvm *kvm, struct hvb_error *err)
{
        struct irqchip *chip = g_new0(struct irqchip, 1);

        chip->device.ops = &irqchip_ops;
        chip->kvm = kvm;
        if (irqchip_read(chip, chip->power_on, err) < 0)
                g_clear_pointer(&chip, g_free);
        return &chip->device;
}

/* ---- Timer: a PIT --------------------------------------------------------------------- */

enum {
        PIT_COUNT_MAX = 0x10000,
        PIT_MODE_MAX = 5,
        PIT_MODE_NONE = 0xff,           /* as KVM makes it: none was set yet */
};

struct pit {
        struct device device;
        const struct kvm *kvm;
        struct kvm_pit_state2 power_on;
};

static int pit_read(const struct pit *pit, struct kvm_pit_state2 *ret_state,
                    struct hvb_error *err)
{
        int ret = kvm_ioctl(pit->kvm->vm_fd, KVM_GET_PIT2, ret_state);

        return ret < 0 ? error_set(err, ret, "KVM does not give the timer: %s", g_strerror(-ret))
                : 0;
}

static int pit_apply(const struct pit *pit, const struct kvm_pit_state2 *state,
                     struct hvb_error *err)
{
        struct kvm_pit_state2 copy = *state;
        int ret = kvm_ioctl(pit->kvm->vm_fd, KVM_SET_PIT2, &copy);

        return ret < 0 ? error_set(err, ret, "KVM refuses the timer: %s", g_strerror(-ret)) : 0;
}

static void pit_reset(struct device *device)
{
        struct pit *pit = (struct pit *) device;
        struct hvb_error err = ERROR_INIT;

        if (pit_apply(pit, &pit->power_on, &err) < 0)
                g_error("%s", err.text);
}

static int pit_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct kvm_pit_state2 state;
        int ret = pit_read((struct pit *) device, &state, err);

        if (ret == 0)
                put_blob(w, &state, sizeof(state));
        return ret;
}

static int pit_load(struct device *device, struct state_reader *r, uint32_t version, bool apply,
                    struct hvb_error *err)
{
        struct kvm_pit_state2 state;

        (void) version;
        if (get_blob(r, &state, sizeof(state)) < 0 || state_reader_end(r) < 0)
                return error_set(err, -EINVAL, "the timer has a state of another size");
        for (unsigned i = 0; i < G_N_ELEMENTS(state.channels); i++) {
                const struct kvm_pit_channel_state *channel = &state.channels[i];

                if (channel->count > PIT_COUNT_MAX
                    || (channel->mode > PIT_MODE_MAX && channel->mode != PIT_MODE_NONE))
                        return error_set(err, -EINVAL, "timer channel %u: count %u, mode %u", i,
                                         channel->count, channel->mode);
        }
        return apply ? pit_apply((struct pit *) device, &state, err) : 0;
}

static const struct device_ops pit_ops = {
        .name = "pit",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = pit_reset,
        .save = pit_save,
        .load = pit_load,
        .free = plain_free,
};

struct device *pit_new(const struct kvm *kvm, struct hvb_error *err)
{
        struct pit *pit = g_new0(struct pit, 1);

        pit->device.ops = &pit_ops;
        pit->kvm = kvm;
        if (pit_read(pit, &pit->power_on, err) < 0)
                g_clear_pointer(&pit, g_free);
        return &pit->device;
}

/* ---- Clock ---------------------------------------------------------------------------- */

#define CLOCK_NSEC_MAX  (1ull << 62)

struct clock {
        struct device device;
        const struct kvm *kvm;
        uint64_t nsec;                  /* where it stands while vcpus are stopped */
};

static uint64_t clock_now(const struct clock *clock)
{
        struct kvm_clock_data data = { 0 };

        if (clock->kvm->has_adjust_clock)
                kvm_ioctl(clock->kvm->vm_fd, KVM_GET_CLOCK, &data);
        return data.clock;
}

void clock_stop(struct device *device)
{
        struct clock *clock = (struct clock *) device;

        clock->nsec = clock_now(clock);
}

void clock_start(struct device *device)
{
        const struct clock *clock = (const struct clock *) device;
        struct kvm_clock_data data = { .clock = clock->nsec };

        if (clock->kvm->has_adjust_clock)
                kvm_ioctl(clock->kvm->vm_fd, KVM_SET_CLOCK, &data);
}

static void clock_reset(struct device *device)
{
        ((struct clock *) device)->nsec = 0;
}

static int clock_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        (void) err;
        state_put_u64(w, ((struct clock *) device)->nsec);
        return 0;
}

static int clock_load(struct device *device, struct state_reader *r, uint32_t version,
                      bool apply, struct hvb_error *err)
{
        uint64_t nsec = state_get_u64(r);

        (void) version;
        if (state_reader_end(r) < 0 || nsec > CLOCK_NSEC_MAX)
                return error_set(err, -EINVAL, "not a clock's state");
        if (apply)
                ((struct clock *) device)->nsec = nsec;
        return 0;
}

static const struct device_ops clock_ops = {
        .name = "kvmclock",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = clock_reset,
        .save = clock_save,
        .load = clock_load,
        .free = plain_free,
};

struct device *clock_new(const struct kvm *kvm)
{
        struct clock *clock = g_new0(struct clock, 1);

        clock->device.ops = &clock_ops;
        clock->kvm = kvm;
        return &clock->device;
}
