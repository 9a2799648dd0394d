/*
 * serial.c - a serial line: a 16550A.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/serial.h"

#include <errno.h>
#include <glib-unix.h>
#include <glib.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "host/error.h"

enum {
        STATE_VERSION = 1,
        FIFO_BYTES = 16,
        OUT_BYTES_MAX = 64 << 10,
        WRITE_BYTES = 4096,             /* what a pipe that is writable takes without waiting */
        PORTS = 8,
        LSR_IDLE = UART_LSR_TEMT | UART_LSR_THRE,
        MSR_CONNECTED = UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS,
};

/* What the guest sees and sets, and what a VM state holds. */
struct uart {
        uint8_t ier;
        uint8_t lcr;
        uint8_t mcr;
        uint8_t scr;
        uint8_t dll;
        uint8_t dlm;
        uint8_t fcr;
        uint8_t overrun;                /* UART_LSR_OE or 0 */
        uint8_t thr_interrupt;          /* bool: the transmitter became empty, not yet told */
        uint8_t fifo_count;
        uint8_t fifo[FIFO_BYTES];       /* oldest first */
};

struct serial {
        struct device device;
        struct serial_options options;
        guint in_source;                /* main thread only */

        pthread_mutex_t lock;           /* of all below */
        guint out_source;               /* 0: nothing to write out */
        struct uart uart;
        bool irq_level;
        GByteArray *out;
};

static bool transmitter_busy(const struct serial *s)
{
        return s->out->len >= OUT_BYTES_MAX;
}

/* ---- Interrupts ----------------------------------------------------------------------- */

/* The most urgent reason, as the IIR says it. */
static uint8_t interrupt_id(const struct serial *s)
{
        const struct uart *uart = &s->uart;

        if (uart->ier & UART_IER_RLSI && uart->overrun)
                return UART_IIR_RLSI;
        if (uart->ier & UART_IER_RDI && uart->fifo_count > 0)
                return UART_IIR_RDI;
        if (uart->ier & UART_IER_THRI && uart->thr_interrupt)
                return UART_IIR_THRI;
        return UART_IIR_NO_INT;
}

static void update_irq(struct serial *s)
{
        bool level = interrupt_id(s) != UART_IIR_NO_INT;

        if (level == s->irq_level)
                return;
        s->irq_level = level;
        s->options.set_irq(s->options.opaque, level);
}

/* ---- The main loop's side ------------------------------------------------------------- */

static gboolean in_ready(gint fd, GIOCondition condition, gpointer opaque);
static gboolean out_ready(gint fd, GIOCondition condition, gpointer opaque);

/* Reads on as soon as there is room.  Main thread. */
static void watch_in(struct serial *s)
{
        if (s->in_source == 0 && s->options.in_fd >= 0)
                s->in_source = g_unix_fd_add(s->options.in_fd, G_IO_IN | G_IO_HUP, in_ready, s);
}

static gboolean watch_in_again(gpointer opaque)
{
        watch_in(opaque);
        return G_SOURCE_REMOVE;
}

/* With the lock, on any thread: the FIFO is empty, whoever feeds it goes on. */
static void want_input(struct serial *s)
{
        if (s->options.in_fd >= 0 && s->uart.fifo_count == 0)
                g_idle_add(watch_in_again, s);
}

static gboolean in_ready(gint fd, GIOCondition condition, gpointer opaque)
{
        struct serial *s = opaque;
        bool goes_on;
        ssize_t count;

        (void) condition;
        pthread_mutex_lock(&s->lock);
        /* Full by a load or in loopback: reading no bytes looks like the end. */
        count = s->uart.fifo_count == FIFO_BYTES ? 0
                : read(fd, s->uart.fifo + s->uart.fifo_count, FIFO_BYTES - s->uart.fifo_count);
        if (count > 0) {
                s->uart.fifo_count += count;
                update_irq(s);
        } else if (s->uart.fifo_count < FIFO_BYTES &&
                   (count == 0 || (errno != EAGAIN && errno != EINTR))) {
                s->options.in_fd = -1;          /* the end of it */
        }
        goes_on = s->options.in_fd >= 0 && s->uart.fifo_count < FIFO_BYTES;
        if (!goes_on)
                s->in_source = 0;
        pthread_mutex_unlock(&s->lock);
        return goes_on;
}

/* Writes a piece out.  With the lock.  False: nothing more can be written. */
static bool write_piece(struct serial *s)
{
        bool was_busy = transmitter_busy(s);
        ssize_t count;

        if (s->out->len == 0)
                return false;
        count = write(s->options.out_fd, s->out->data, MIN(s->out->len, WRITE_BYTES));
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        if (count < 0)
                g_byte_array_set_size(s->out, 0);       /* nobody listens any more */
        else
                g_byte_array_remove_range(s->out, 0, count);
        if (was_busy && !transmitter_busy(s)) {
                s->uart.thr_interrupt = true;
                update_irq(s);
        }
        return true;
}

static gboolean out_ready(gint fd, GIOCondition condition, gpointer opaque)
{
        struct serial *s = opaque;
        bool goes_on;

        (void) fd;
        (void) condition;
        pthread_mutex_lock(&s->lock);
        write_piece(s);
        goes_on = s->out->len > 0;
        if (!goes_on)
                s->out_source = 0;
        pthread_mutex_unlock(&s->lock);
        return goes_on;
}

void serial_flush(struct serial *s)
{
        struct pollfd out = { s->options.out_fd, POLLOUT, 0 };

        pthread_mutex_lock(&s->lock);
        while (s->out->len > 0 && poll(&out, 1, 0) > 0 && write_piece(s))
                ;
        pthread_mutex_unlock(&s->lock);
}

/* ---- Registers; on a vcpu's thread ---------------------------------------------------- */

static void transmit(struct serial *s, uint8_t byte)
{
        struct uart *uart = &s->uart;

        if (uart->mcr & UART_MCR_LOOP) {
                if (uart->fifo_count < FIFO_BYTES)
                        uart->fifo[uart->fifo_count++] = byte;
                else
                        uart->overrun = UART_LSR_OE;
        } else if (s->options.out_fd >= 0 && !transmitter_busy(s)) {
                g_byte_array_append(s->out, &byte, 1);
                if (s->out_source == 0)
                        s->out_source = g_unix_fd_add(s->options.out_fd, G_IO_OUT | G_IO_ERR,
                                                      out_ready, s);
        }
        uart->thr_interrupt = !transmitter_busy(s);
}

static uint8_t receive(struct serial *s)
{
        struct uart *uart = &s->uart;
        uint8_t byte = 0;

        if (uart->fifo_count == 0)
                return 0;
        byte = uart->fifo[0];
        memmove(uart->fifo, uart->fifo + 1, --uart->fifo_count);
        want_input(s);
        return byte;
}

static uint8_t read_status(struct serial *s)
{
        struct uart *uart = &s->uart;
        uint8_t value = uart->overrun | (uart->fifo_count > 0 ? UART_LSR_DR : 0)
                | (transmitter_busy(s) ? 0 : LSR_IDLE);

        uart->overrun = 0;
        return value;
}

/* Loopback ties the modem's outputs to its inputs. */
static uint8_t modem_status(const struct uart *uart)
{
        if (!(uart->mcr & UART_MCR_LOOP))
                return MSR_CONNECTED;
        return (uart->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0)
                | (uart->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0)
                | (uart->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0)
                | (uart->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static uint8_t read_register(struct serial *s, uint64_t port)
{
        struct uart *uart = &s->uart;
        bool divisor = uart->lcr & UART_LCR_DLAB;
        uint8_t id;

        switch (port) {
        case UART_RX:
                return divisor ? uart->dll : receive(s);
        case UART_IER:
                return divisor ? uart->dlm : uart->ier;
        case UART_IIR:
                id = interrupt_id(s);
                if (id == UART_IIR_THRI)
                        uart->thr_interrupt = false;
                return id | (uart->fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0);
        case UART_LCR:
                return uart->lcr;
        case UART_MCR:
                return uart->mcr;
        case UART_LSR:
                return read_status(s);
        case UART_MSR:
                return modem_status(uart);
        default:
                return uart->scr;
        }
}

static void write_register(struct serial *s, uint64_t port, uint8_t value)
{
        struct uart *uart = &s->uart;
        bool divisor = uart->lcr & UART_LCR_DLAB;

        switch (port) {
        case UART_TX:
                if (divisor)
                        uart->dll = value;
                else
                        transmit(s, value);
                break;
        case UART_IER:
                if (divisor) {
                        uart->dlm = value;
                        break;
                }
                /* Enabling it with an empty transmitter interrupts at once. */
                if (value & ~uart->ier & UART_IER_THRI && !transmitter_busy(s))
                        uart->thr_interrupt = true;
                uart->ier = value & 0x0f;
                break;
        case UART_FCR:
                uart->fcr = value;
                if (value & UART_FCR_CLEAR_RCVR) {
                        uart->fifo_count = 0;
                        want_input(s);
                }
                break;
        case UART_LCR:
                uart->lcr = value;
                break;
        case UART_MCR:
                uart->mcr = value & 0x1f;
                break;
        case UART_SCR:
                uart->scr = value;
                break;
        default:
                break;
        }
}

static void read_port(void *opaque, uint64_t port, void *bytes, unsigned count)
{
        struct serial *s = opaque;

        memset(bytes, 0xff, count);
        pthread_mutex_lock(&s->lock);
        *(uint8_t *) bytes = read_register(s, port);
        update_irq(s);
        pthread_mutex_unlock(&s->lock);
}

static void write_port(void *opaque, uint64_t port, const void *bytes, unsigned count)
{
        struct serial *s = opaque;

        (void) count;
        pthread_mutex_lock(&s->lock);
        write_register(s, port, *(const uint8_t *) bytes);
        update_irq(s);
        pthread_mutex_unlock(&s->lock);
}

/* ---- The machine's side --------------------------------------------------------------- */

static void install(struct serial *s, const struct uart *uart)
{
        pthread_mutex_lock(&s->lock);
        s->uart = *uart;
        s->irq_level = interrupt_id(s) != UART_IIR_NO_INT;
        s->options.set_irq(s->options.opaque, s->irq_level);
        if (uart->fifo_count < FIFO_BYTES)
                g_idle_add(watch_in_again, s);
        pthread_mutex_unlock(&s->lock);
}

static void device_reset(struct device *device)
{
        const struct uart power_on = { .dll = 12 };     /* 9600 */

        install((struct serial *) device, &power_on);
}

static int device_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct serial *s = (struct serial *) device;
        const struct uart *uart = &s->uart;

        (void) err;
        pthread_mutex_lock(&s->lock);
        state_put_u8(w, uart->ier);
        state_put_u8(w, uart->lcr);
        state_put_u8(w, uart->mcr);
        state_put_u8(w, uart->scr);
        state_put_u8(w, uart->dll);
        state_put_u8(w, uart->dlm);
        state_put_u8(w, uart->fcr);
        state_put_u8(w, uart->overrun);
        state_put_u8(w, uart->thr_interrupt);
        state_put_u8(w, uart->fifo_count);
        state_put_bytes(w, uart->fifo, sizeof(uart->fifo));
        pthread_mutex_unlock(&s->lock);
        return 0;
}

static int device_load(struct device *device, struct state_reader *r, uint32_t version,
                       bool apply, struct hvb_error *err)
{
        struct uart uart;

        (void) version;
        uart.ier = state_get_u8(r);
        uart.lcr = state_get_u8(r);
        uart.mcr = state_get_u8(r);
        uart.scr = state_get_u8(r);
        uart.dll = state_get_u8(r);
        uart.dlm = state_get_u8(r);
        uart.fcr = state_get_u8(r);
        uart.overrun = state_get_u8(r);
        uart.thr_interrupt = state_get_u8(r);
        uart.fifo_count = state_get_u8(r);
        state_get_bytes(r, uart.fifo, sizeof(uart.fifo));
        if (state_reader_end(r) < 0 || uart.ier > 0x0f || uart.mcr > 0x1f
            || uart.overrun & ~UART_LSR_OE || uart.thr_interrupt > 1
            || uart.fifo_count > FIFO_BYTES)
                return error_set(err, -EINVAL, "not a state of a serial line");
        if (apply)
                install((struct serial *) device, &uart);
        return 0;
}

static void device_free(struct device *device)
{
        struct serial *s = (struct serial *) device;

        serial_flush(s);
        if (s->in_source != 0)
                g_source_remove(s->in_source);
        if (s->out_source != 0)
                g_source_remove(s->out_source);
        while (g_idle_remove_by_data(s))
                ;
        g_byte_array_unref(s->out);
        pthread_mutex_destroy(&s->lock);
        g_free(s);
}

static const struct device_ops device_ops = {
        .name = "serial",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = device_reset,
        .save = device_save,
        .load = device_load,
        .free = device_free,
};

struct serial *serial_new(const struct serial_options *options, struct bus *ports)
{
        struct serial *s = g_new0(struct serial, 1);
        const struct bus_region region = {
                .base = SERIAL_PORT,
                .length = PORTS,
                .opaque = s,
                .read = read_port,
                .write = write_port,
        };

        s->device.ops = &device_ops;
        s->options = *options;
        s->out = g_byte_array_new();
        pthread_mutex_init(&s->lock, NULL);
        device_reset(&s->device);
        bus_add(ports, &region);
        watch_in(s);
        return s;
}

struct device *serial_device(struct serial *s)
{
        return &s->device;
}
