/*
 * machine.c - the parts of a machine: made, wired, taken apart.
 *
 * Where things are:
 *
 *   0xd0000000 + 4 KiB * n   disk n: virtio-mmio, interrupt irqs[n]
 *   port 0x3f8               serial line, interrupt 4
 *   ports 0x64 0xcf9 0x600   reset, reset, power (ports.h)
 *
 * Order of devices, which is that of loading: vcpus before the interrupt controllers, whose
 * pending interrupts go to the vcpus' local APICs; the clock last.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/machine.h"

#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "vm/irqchip.h"
#include "vm/machine-parts.h"

#define DISK_ADDRESS    0xd0000000ull

enum { QUEUE_SIZE_DEFAULT = 256 };

/* Of disks; those below 16 can be had without an IOAPIC too. */
static const uint8_t disk_irqs[MACHINE_DISKS_MAX] = {
        5, 7, 10, 11, 12, 14, 15, 6, 16, 17, 18, 19, 20, 21, 22, 23,
};

/* ---- What parts tell the machine ------------------------------------------------------- */

static void guest_resets(void *opaque)
{
        machine_want(opaque, WANT_RESET, NULL);
}

static void guest_powers_off(void *opaque)
{
        machine_want(opaque, WANT_POWER_OFF, NULL);
}

static void disk_stopped(void *opaque)
{
        machine_want(opaque, WANT_IO_STOP, NULL);
}

static void vcpu_event(void *opaque, unsigned index, enum vcpu_event event, const char *text)
{
        (void) index;
        machine_want(opaque, event == VCPU_TRIPLE_FAULT ? WANT_RESET : WANT_FAIL, text);
}

static void set_serial_irq(void *opaque, bool level)
{
        const struct machine *m = opaque;

        kvm_set_irq(&m->kvm, SERIAL_IRQ, level);
}

/* ---- Disks ----------------------------------------------------------------------------- */

static void disk_log(void *opaque, enum hvb_log_level level, const char *text)
{
        const struct machine_slot *slot = opaque;
        g_autofree char *line = g_strdup_printf("disk '%s': %s", slot->disk->id, text);

        if (level <= HVB_LOG_WARNING)
                machine_tell(slot->machine, line);
}

static enum hvb_error_action disk_io_error(void *opaque, const struct hvb_io_error *what)
{
        const struct machine_slot *slot = opaque;

        return virtio_blk_io_error(slot->blk, what);
}

static void disk_event(void *opaque, const struct hvb_event *event)
{
        const struct machine_slot *slot = opaque;
        g_autofree char *line = g_strdup_printf("disk '%s': %s", slot->disk->id, event->text);

        machine_tell(slot->machine, line);
}

static int open_drive(struct machine_slot *slot, const struct machine_disk_config *config,
                      struct hvb_error *err)
{
        const char *const discard[] = { "discard=unmap", NULL };
        struct drive_options options = {
                .format = config->format,
                .flags = config->read_only ? 0 : HVB_OPEN_RDWR,
                .cache = config->cache,
                .lock_timeout_ms = config->lock_timeout_ms,
                .options = config->discard_unmap && strcmp(config->format, "qcow2") == 0 ? discard
                        : NULL,
                .policy = config->policy,
                .watch = &slot->watch,
        };

        /* The guest says whether writes are made durable one by one: see virtio_blk. */
        options.cache.writethrough = false;
        return drive_thread_open(config->path, &options, &slot->disk->thread, err);
}

static int wire_disk(struct machine *m, struct virtio_blk *blk, unsigned index,
                     struct hvb_error *err)
{
        struct virtio_mmio *mmio = virtio_blk_mmio(blk);
        uint64_t address = DISK_ADDRESS + index * VIRTIO_MMIO_BYTES;
        const struct bus_region region = {
                .base = address,
                .length = VIRTIO_MMIO_BYTES,
                .opaque = mmio,
                .read = virtio_mmio_read,
                .write = virtio_mmio_write,
        };
        int ret = kvm_add_irqfd(&m->kvm, mmio->irq_fd, disk_irqs[index]);

        if (ret >= 0)
                ret = kvm_add_ioeventfd(&m->kvm, mmio->bell_fd, address + VIRTIO_MMIO_NOTIFY, 0);
        if (ret < 0)
                return error_set(err, ret, "KVM takes no eventfd: %s", g_strerror(-ret));
        bus_add(&m->mmio, &region);
        return 0;
}

static int add_disk(struct machine *m, const struct machine_disk_config *config, unsigned index,
                    struct hvb_error *err)
{
        struct machine_slot *slot = &m->slots[index];
        const struct virtio_blk_options options = {
                .instance = index,
                .serial = config->serial,
                .read_only = config->read_only,
                .discard = config->discard_unmap,
                .writethrough = config->cache.writethrough,
                .queue_size = config->queue_size == 0 ? QUEUE_SIZE_DEFAULT : config->queue_size,
                .write_error = config->write_error,
                .read_error = config->read_error,
                .stopped = disk_stopped,
                .opaque = m,
        };
        int ret;

        slot->machine = m;
        slot->disk = &m->disks[index];
        *slot->disk = (struct machine_disk) {
                .id = config->id,
                .path = config->path,
                .format = config->format,
                .read_only = config->read_only,
        };
        slot->watch = (struct drive_watch) {
                .opaque = slot,
                .log = disk_log,
                .io_error = disk_io_error,
                .event = disk_event,
        };
        m->disk_count = index + 1;
        ret = virtio_blk_new(&m->mem, &options, &slot->blk, err);
        if (ret == 0)
                ret = open_drive(slot, config, err);
        if (ret == 0)
                ret = virtio_blk_attach(slot->blk, slot->disk->thread, err);
        if (ret == 0)
                ret = wire_disk(m, slot->blk, index, err);
        if (ret < 0)
                error_prepend(err, "drive '%s': ", config->id);
        return ret;
}

/* ---- All parts ------------------------------------------------------------------------- */

static int add_processors(struct machine *m, const struct machine_config *config,
                          struct hvb_error *err)
{
        int ret = kvm_init(&m->kvm, &m->mem, err);

        if (ret < 0)
                return ret;
        m->vcpu_env = (struct vcpu_env) {
                .kvm = &m->kvm,
                .mem = &m->mem,
                .ports = &m->ports,
                .mmio = &m->mmio,
                .opaque = m,
                .event = vcpu_event,
        };
        ret = vcpus_new(&m->vcpu_env, config->cpu_count, &m->vcpus, err);
        for (unsigned i = 0; i < config->cpu_count && ret == 0; i++)
                g_ptr_array_add(m->devices, &vcpus_at(m->vcpus, i)->device);
        return ret;
}

static int add_board(struct machine *m, const struct machine_config *config,
                     struct hvb_error *err)
{
        const struct serial_options serial = {
                .in_fd = config->serial_in,
                .out_fd = config->serial_out,
                .set_irq = set_serial_irq,
                .opaque = m,
        };
        const struct ports_events events = { m, guest_resets, guest_powers_off };
        struct device *irqchip = irqchip_new(&m->kvm, err);
        struct device *pit;

        if (irqchip == NULL)
                return err->code;
        g_ptr_array_add(m->devices, irqchip);
        pit = pit_new(&m->kvm, err);
        if (pit == NULL)
                return err->code;
        g_ptr_array_add(m->devices, pit);
        g_ptr_array_add(m->devices, ports_new(&events, &m->ports));
        m->serial = serial_new(&serial, &m->ports);
        g_ptr_array_add(m->devices, serial_device(m->serial));
        return 0;
}

static int add_disks(struct machine *m, const struct machine_config *config,
                     struct hvb_error *err)
{
        m->disks = g_new0(struct machine_disk, config->disk_count);
        m->slots = g_new0(struct machine_slot, config->disk_count);
        for (unsigned i = 0; i < config->disk_count; i++) {
                int ret = add_disk(m, &config->disks[i], i, err);

                if (ret < 0)
                        return ret;
                g_ptr_array_add(m->devices, virtio_blk_device(m->slots[i].blk));
        }
        return 0;
}

static int read_kernel(struct machine *m, const struct machine_config *config,
                       struct hvb_error *err)
{
        struct boot_device devices[MACHINE_DISKS_MAX];
        const struct boot_config boot = {
                .kernel_path = config->kernel_path,
                .initrd_path = config->initrd_path,
                .append = config->append,
                .devices = devices,
                .device_count = config->disk_count,
                .cpu_count = config->cpu_count,
        };

        for (unsigned i = 0; i < config->disk_count; i++)
                devices[i] = (struct boot_device) {
                        .address = DISK_ADDRESS + i * VIRTIO_MMIO_BYTES,
                        .length = VIRTIO_MMIO_BYTES,
                        .irq = disk_irqs[i],
                };
        return boot_new(&boot, &m->mem, &m->boot, err);
}

int machine_boot(struct machine *m, struct hvb_error *err)
{
        struct boot_entry entry;

        boot_load(m->boot, &m->mem, &entry);
        return vcpus_set_entry(m->vcpus, &entry, err);
}

static int build(struct machine *m, const struct machine_config *config, struct hvb_error *err)
{
        int ret;

        if (config->cpu_count == 0 || config->cpu_count > MACHINE_CPUS_MAX)
                return error_set(err, -EINVAL, "%u CPUs: must be 1 to %d", config->cpu_count,
                                 MACHINE_CPUS_MAX);
        if (config->disk_count > MACHINE_DISKS_MAX)
                return error_set(err, -EINVAL, "%u disks: at most %d are possible",
                                 config->disk_count, MACHINE_DISKS_MAX);
        ret = guest_memory_init(&m->mem, config->ram_bytes, config->huge_pages, err);
        if (ret == 0)
                ret = read_kernel(m, config, err);
        if (ret == 0)
                ret = add_processors(m, config, err);
        if (ret == 0)
                ret = add_board(m, config, err);
        if (ret == 0)
                ret = add_disks(m, config, err);
        if (ret < 0)
                return ret;
        m->clock = clock_new(&m->kvm);
        g_ptr_array_add(m->devices, m->clock);
        return machine_boot(m, err);
}

/* ---- Life ------------------------------------------------------------------------------ */

int machine_new(const struct machine_config *config, struct machine **ret_machine,
                struct hvb_error *err)
{
        struct machine *m = g_new0(struct machine, 1);
        int ret;

        error_clear(err);
        m->kvm.fd = m->kvm.vm_fd = -1;
        m->no_reboot = config->no_reboot;
        m->cpu_count = config->cpu_count;
        m->state = RUN_STATE_PRELAUNCH;
        m->devices = g_ptr_array_new();
        machine_run_init(m);
        ret = build(m, config, err);
        if (ret < 0) {
                machine_free(m, NULL);
                return ret;
        }
        *ret_machine = m;
        return 0;
}

/* Devices go before their drives; a disk whose making failed is no device yet. */
static int free_disks(struct machine *m, struct hvb_error *err)
{
        int first = 0;

        for (unsigned i = 0; i < m->disk_count; i++) {
                struct hvb_error one = ERROR_INIT;
                int ret;

                virtio_blk_free(m->slots[i].blk);
                ret = drive_thread_close(m->disks[i].thread, &one);
                if (ret < 0 && first == 0)
                        first = error_set(err, ret, "disk '%s': %s", m->disks[i].id, one.text);
        }
        g_free(m->slots);
        g_free(m->disks);
        return first;
}

int machine_free(struct machine *m, struct hvb_error *err)
{
        int ret;

        error_clear(err);
        if (m == NULL)
                return 0;
        machine_rest(m);
        guest_memory_unwatch(&m->mem);          /* it may read from a disk */
        for (unsigned i = 0; i < m->devices->len; i++) {
                struct device *device = g_ptr_array_index(m->devices, i);

                if (device->ops->free != NULL)
                        device->ops->free(device);
        }
        ret = free_disks(m, err);
        vcpus_free(m->vcpus);
        kvm_clear(&m->kvm);
        boot_free(m->boot);
        guest_memory_clear(&m->mem);
        g_ptr_array_unref(m->devices);
        machine_run_clear(m);
        g_free(m);
        return ret;
}

/* ---- Parts ----------------------------------------------------------------------------- */

struct guest_memory *machine_memory(struct machine *m)
{
        return &m->mem;
}

int machine_swap_memory(struct machine *m, struct guest_memory *memory, struct hvb_error *err)
{
        struct guest_memory old = m->mem;
        int ret = kvm_replace_memory(&m->kvm, memory);

        if (ret < 0)
                return error_set(err, ret, "KVM does not take other memory: %s",
                                 g_strerror(-ret));
        m->mem = *memory;
        *memory = old;
        return 0;
}

void machine_kick_disks(struct machine *m)
{
        for (unsigned i = 0; i < m->disk_count; i++)
                virtio_mmio_ring_bell(virtio_blk_mmio(m->slots[i].blk));
}

unsigned machine_cpu_count(struct machine *m)
{
        return m->cpu_count;
}

struct device *const *machine_devices(struct machine *m, unsigned *ret_count)
{
        *ret_count = m->devices->len;
        return (struct device *const *) m->devices->pdata;
}

struct machine_disk *machine_disks(struct machine *m, unsigned *ret_count)
{
        *ret_count = m->disk_count;
        return m->disks;
}
