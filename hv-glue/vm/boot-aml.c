/*
 * boot-aml.c - the DSDT's byte code: the disks, and how to power off.
 *
 *   Name (\_S5_, Package () { 5, 0, 0, 0 })
 *   Scope (\_SB_) {
 *           Device (VD00) {                         ... one for each virtio-mmio device
 *                   Name (_HID, "LNRO0005")
 *                   Name (_UID, 0)
 *                   Name (_CRS, ResourceTemplate () {
 *                           Memory32Fixed (ReadWrite, ADDRESS, LENGTH)
 *                           Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { IRQ }
 *                   })
 *           }
 *   }
 *
 * ACPI specification 5.0, chapter 19 (AML), 6.4 (resources).
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "vm/boot-parts.h"
#include "vm/ports.h"

enum {
        AML_NAME = 0x08,
        AML_BYTE = 0x0a,
        AML_STRING = 0x0d,
        AML_SCOPE = 0x10,
        AML_BUFFER = 0x11,
        AML_PACKAGE = 0x12,
        AML_EXTENDED = 0x5b,
        AML_DEVICE = 0x82,
        LENGTH_BYTES = 2,
        RESOURCE_MEMORY32 = 0x86,
        RESOURCE_INTERRUPT = 0x89,
        RESOURCE_END = 0x79,
        MEMORY_WRITABLE = 1,
        INTERRUPT_EDGE_CONSUMER = 3,
};

static void add_byte(GByteArray *code, uint8_t byte)
{
        g_byte_array_append(code, &byte, 1);
}

static void add_text(GByteArray *code, const char *text)
{
        g_byte_array_append(code, (const guint8 *) text, strlen(text));
}

static void add_u32(GByteArray *code, uint32_t value)
{
        value = GUINT32_TO_LE(value);
        g_byte_array_append(code, (const guint8 *) &value, sizeof(value));
}

/* The length of a package, which counts itself, and its content. */
static void add_package(GByteArray *code, GByteArray *content)
{
        guint length = content->len + LENGTH_BYTES;

        g_assert(length < 1 << 12);
        add_byte(code, 1 << 6 | (length & 0xf));
        add_byte(code, length >> 4);
        g_byte_array_append(code, content->data, content->len);
        g_byte_array_unref(content);
}

static void add_sleep(GByteArray *code)
{
        GByteArray *values = g_byte_array_new();

        add_byte(values, 4);
        add_byte(values, AML_BYTE);
        add_byte(values, PORTS_SLEEP_OFF);
        for (unsigned i = 0; i < 3; i++)
                add_byte(values, 0);
        add_byte(code, AML_NAME);
        add_text(code, "_S5_");
        add_byte(code, AML_PACKAGE);
        add_package(code, values);
}

static GByteArray *resources_of(const struct boot_device *device)
{
        GByteArray *bytes = g_byte_array_new();

        add_byte(bytes, RESOURCE_MEMORY32);
        add_byte(bytes, 9);
        add_byte(bytes, 0);
        add_byte(bytes, MEMORY_WRITABLE);
        add_u32(bytes, device->address);
        add_u32(bytes, device->length);
        add_byte(bytes, RESOURCE_INTERRUPT);
        add_byte(bytes, 6);
        add_byte(bytes, 0);
        add_byte(bytes, INTERRUPT_EDGE_CONSUMER);
        add_byte(bytes, 1);
        add_u32(bytes, device->irq);
        add_byte(bytes, RESOURCE_END);
        add_byte(bytes, 0);
        return bytes;
}

static void add_device(GByteArray *code, const struct boot_device *device, unsigned index)
{
        g_autofree char *name = g_strdup_printf("VD%02u", index);
        GByteArray *resources = resources_of(device);
        GByteArray *buffer = g_byte_array_new();
        GByteArray *content = g_byte_array_new();

        add_text(content, name);
        add_byte(content, AML_NAME);
        add_text(content, "_HID");
        add_byte(content, AML_STRING);
        add_text(content, "LNRO0005");
        add_byte(content, 0);
        add_byte(content, AML_NAME);
        add_text(content, "_UID");
        add_byte(content, AML_BYTE);
        add_byte(content, index);
        add_byte(content, AML_NAME);
        add_text(content, "_CRS");
        add_byte(content, AML_BUFFER);
        add_byte(buffer, AML_BYTE);
        add_byte(buffer, resources->len);
        g_byte_array_append(buffer, resources->data, resources->len);
        g_byte_array_unref(resources);
        add_package(content, buffer);
        add_byte(code, AML_EXTENDED);
        add_byte(code, AML_DEVICE);
        add_package(code, content);
}

GByteArray *boot_aml(const struct boot_device *devices, unsigned count)
{
        GByteArray *code = g_byte_array_new();
        GByteArray *scope = g_byte_array_new();

        add_sleep(code);
        add_text(scope, "\\_SB_");
        for (unsigned i = 0; i < count; i++)
                add_device(scope, &devices[i], i);
        add_byte(code, AML_SCOPE);
        add_package(code, scope);
        return code;
}
