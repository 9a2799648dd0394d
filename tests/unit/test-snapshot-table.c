/*
 * test-snapshot-table.c - entries of the snapshot table, laid by hand from the
 * format's field table, and as qemu-img makes them.
 *
 * Properties: an entry cut anywhere asks for more (-EAGAIN) until its last byte
 * that is not padding; whatever is encoded is decoded to the same.
 * Buffers are malloc()ed to the byte for the sanitizer's sake.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <time.h>

#include "disk/header.h"
#include "disk/snapshot-table.h"
#include "qemu-img.h"

/* Offsets of the format's table. */
enum {
        L1_OFFSET = 0, L1_SIZE = 8, ID_LEN = 12, NAME_LEN = 14, DATE_SEC = 16, DATE_NSEC = 20,
        VM_CLOCK = 24, VM_STATE_SIZE = 32, EXTRA_SIZE = 36, EXTRA = 40,
        EXTRA_VM_STATE_SIZE = 40, EXTRA_DISK_SIZE = 48, EXTRA_ICOUNT = 56,
};

enum { DISK_BYTES = 12345 * 512 };

/* An entry without its padding; extra data holds recognisable fields, then 0xee. */
static uint8_t *entry_new(uint32_t extra_bytes, const char *id, const char *name,
                          size_t *ret_bytes)
{
        size_t id_bytes = strlen(id);
        size_t name_bytes = strlen(name);
        uint8_t *b = g_malloc(EXTRA + MAX(extra_bytes, 24) + id_bytes + name_bytes);

        be64_store(b + L1_OFFSET, 0x70000);
        be32_store(b + L1_SIZE, 3);
        be16_store(b + ID_LEN, (uint16_t)id_bytes);
        be16_store(b + NAME_LEN, (uint16_t)name_bytes);
        be32_store(b + DATE_SEC, 1700000000);
        be32_store(b + DATE_NSEC, 999999999);
        be64_store(b + VM_CLOCK, UINT64_C(123456789012345));
        be32_store(b + VM_STATE_SIZE, 0x11110000);
        be32_store(b + EXTRA_SIZE, extra_bytes);
        memset(b + EXTRA, 0xee, MAX(extra_bytes, 24));
        be64_store(b + EXTRA_VM_STATE_SIZE, UINT64_C(0x211110000));
        be64_store(b + EXTRA_DISK_SIZE, 99 * 512);
        be64_store(b + EXTRA_ICOUNT, 424242);
        memcpy(b + EXTRA + extra_bytes, id, id_bytes);
        memcpy(b + EXTRA + extra_bytes + id_bytes, name, name_bytes);
        *ret_bytes = EXTRA + extra_bytes + id_bytes + name_bytes;
        return g_realloc(b, *ret_bytes);
}

static void decode_good(struct snapshot *s, const uint8_t *b, size_t byte_count)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        size_t used = 0;
        int ret = snapshot_decode(s, b, byte_count, 3, DISK_BYTES, 0, &used, &err);

        g_assert_cmpstr(err.text, ==, "");
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpuint(used, ==, (byte_count + 7) / 8 * 8);
}

static void decode_new(struct snapshot *s, uint32_t extra_bytes, const char *id, const char *name)
{
        size_t byte_count;
        g_autofree uint8_t *b = entry_new(extra_bytes, id, name, &byte_count);

        decode_good(s, b, byte_count);
}

static uint8_t *encode(const struct snapshot *s, size_t *ret_bytes)
{
        uint8_t *b;

        *ret_bytes = snapshot_encoded_bytes(s);
        b = g_malloc(*ret_bytes);
        memset(b, 0x55, *ret_bytes);
        snapshot_encode(s, b);
        return b;
}

static void assert_same(const struct snapshot *a, const struct snapshot *b)
{
        uint32_t unknown_bytes = a->extra_bytes > 24 ? a->extra_bytes - 24 : 0;

        g_assert_cmpstr(a->id, ==, b->id);
        g_assert_cmpstr(a->name, ==, b->name);
        g_assert_cmphex(a->l1_offset, ==, b->l1_offset);
        g_assert_cmpuint(a->l1_entries, ==, b->l1_entries);
        g_assert_cmpuint(a->date_sec, ==, b->date_sec);
        g_assert_cmpuint(a->date_nsec, ==, b->date_nsec);
        g_assert_cmpuint(a->vm_clock_nsec, ==, b->vm_clock_nsec);
        g_assert_cmpuint(a->vm_state_bytes, ==, b->vm_state_bytes);
        g_assert_cmpuint(a->disk_bytes, ==, b->disk_bytes);
        g_assert_cmpuint(a->icount, ==, b->icount);
        g_assert_cmpuint(MAX(a->extra_bytes, 24), ==, MAX(b->extra_bytes, 24));
        g_assert_cmpmem(a->unknown_extra, unknown_bytes, b->unknown_extra, unknown_bytes);
}

/* ---- decoding ---- */

static void decode_whole(void)
{
        struct snapshot s;

        decode_new(&s, 24, "7", "before the update");
        g_assert_cmpstr(s.id, ==, "7");
        g_assert_cmpstr(s.name, ==, "before the update");
        g_assert_cmphex(s.l1_offset, ==, 0x70000);
        g_assert_cmpuint(s.l1_entries, ==, 3);
        g_assert_cmpuint(s.date_sec, ==, 1700000000);
        g_assert_cmpuint(s.date_nsec, ==, 999999999);
        g_assert_cmpuint(s.vm_clock_nsec, ==, UINT64_C(123456789012345));
        g_assert_cmphex(s.vm_state_bytes, ==, UINT64_C(0x211110000));
        g_assert_cmpuint(s.disk_bytes, ==, 99 * 512);
        g_assert_cmpuint(s.icount, ==, 424242);
        g_assert_null(s.unknown_extra);
        snapshot_clear(&s);
        g_assert_null(s.id);
}

/* What the extra data is too short for comes from elsewhere, in either version. */
static void decode_short_extra(void)
{
        for (uint32_t extra_bytes = 0; extra_bytes <= 24; extra_bytes++) {
                size_t byte_count;
                g_autofree uint8_t *b = entry_new(extra_bytes, "1", "s", &byte_count);

                for (unsigned version = 2; version <= 3; version++) {
                        struct snapshot s;
                        size_t used;

                        g_assert_cmpint(snapshot_decode(&s, b, byte_count, version, DISK_BYTES, 0,
                                                        &used, NULL), ==, 0);
                        g_assert_cmphex(s.vm_state_bytes, ==,
                                        extra_bytes >= 8 ? UINT64_C(0x211110000) : 0x11110000);
                        g_assert_cmpuint(s.disk_bytes, ==,
                                         extra_bytes >= 16 ? 99 * 512 : DISK_BYTES);
                        g_assert_cmpuint(s.icount, ==, extra_bytes >= 24 ? 424242 : UINT64_MAX);
                        g_assert_cmpstr(s.name, ==, "s");
                        snapshot_clear(&s);
                }
        }
}

static void decode_longest(void)
{
        g_autofree char *id = g_strnfill(65535, 'i');
        g_autofree char *name = g_strnfill(65535, 'n');
        struct snapshot s;

        decode_new(&s, 1024, id, name);
        g_assert_cmpstr(s.id, ==, id);
        g_assert_cmpstr(s.name, ==, name);
        g_assert_cmpuint(s.unknown_extra[999], ==, 0xee);
        snapshot_clear(&s);
}

static void refuse_too_much_extra(void)
{
        g_autofree uint8_t *b = g_malloc0(40);
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct snapshot s;
        size_t used = 1;

        be32_store(b + EXTRA_SIZE, 1025);
        g_assert_cmpint(snapshot_decode(&s, b, 40, 3, 0, 17, &used, &err), ==, -EFBIG);
        g_assert_cmpstr(err.text, ==, "Too much extra metadata in snapshot table entry 17: 1025 "
                        "bytes, limit 1024");
        g_assert_cmpuint(used, ==, 1);
        be32_store(b + EXTRA_SIZE, UINT32_MAX);
        g_assert_cmpint(snapshot_decode(&s, b, 40, 3, 0, 17, &used, NULL), ==, -EFBIG);
}

static void truncated_anywhere(void)
{
        size_t byte_count;
        g_autofree uint8_t *whole = entry_new(41, "12", "somewhere", &byte_count);

        for (size_t available = 0; available < byte_count; available++) {
                g_autofree uint8_t *cut = g_memdup2(whole, available);
                struct hvb_error err = { .struct_bytes = sizeof(err) };
                struct snapshot untouched;
                struct snapshot s;
                size_t used = 1;

                memset(&s, 0x55, sizeof(s));
                memset(&untouched, 0x55, sizeof(untouched));
                g_assert_cmpint(snapshot_decode(&s, cut, available, 3, 0, 0, &used, &err), ==,
                                -EAGAIN);
                g_assert_cmpmem(&s, sizeof(s), &untouched, sizeof(untouched));
                g_assert_cmpuint(used, ==, 1);
                g_assert_cmpint(err.code, ==, 0);
        }
}

/* ---- encoding ---- */

static void encode_by_hand(void)
{
        struct snapshot s = {
                .id = (char *)"1", .name = (char *)"name",
                .l1_offset = 0x123450000, .l1_entries = 9,
                .date_sec = 5, .date_nsec = 6, .vm_clock_nsec = 7, .vm_state_bytes = 0xfffffffe,
                .disk_bytes = 8, .icount = UINT64_MAX,
        };
        static const uint8_t expected[] = {
                0, 0, 0, 1, 0x23, 0x45, 0, 0,  0, 0, 0, 9, 0, 1, 0, 4,
                0, 0, 0, 5, 0, 0, 0, 6,  0, 0, 0, 0, 0, 0, 0, 7,
                0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 24,
                0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe,  0, 0, 0, 0, 0, 0, 0, 8,
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                '1', 'n', 'a', 'm', 'e', 0, 0, 0,
        };
        size_t byte_count;
        g_autofree uint8_t *b = encode(&s, &byte_count);

        g_assert_cmpmem(b, byte_count, expected, sizeof(expected));
}

static void encode_large_vm_state(void)
{
        struct snapshot s = { .id = (char *)"1", .name = (char *)"",
                              .vm_state_bytes = UINT64_C(1) << 32 };
        struct snapshot again;
        size_t byte_count;
        g_autofree uint8_t *b = encode(&s, &byte_count);

        g_assert_cmphex(be32_load(b + VM_STATE_SIZE), ==, 0);
        g_assert_cmphex(be64_load(b + EXTRA_VM_STATE_SIZE), ==, UINT64_C(1) << 32);
        g_assert_cmpuint(byte_count, ==, 72);
        decode_good(&again, b, 65);
        assert_same(&s, &again);
        snapshot_clear(&again);
}

/* What has all fields of ours comes back as it was, unknown extra data included. */
static void encode_what_was_decoded(void)
{
        for (uint32_t extra_bytes = 24; extra_bytes <= 1024; extra_bytes += 25) {
                size_t encoded_bytes;
                size_t byte_count;
                g_autofree uint8_t *b = entry_new(extra_bytes, "3", "as it was", &byte_count);
                g_autofree uint8_t *encoded = NULL;
                struct snapshot s;

                be32_store(b + VM_STATE_SIZE, 0);
                decode_good(&s, b, byte_count);
                encoded = encode(&s, &encoded_bytes);
                g_assert_cmpuint(encoded_bytes, ==, (byte_count + 7) / 8 * 8);
                g_assert_cmpmem(encoded, byte_count, b, byte_count);
                for (size_t i = byte_count; i < encoded_bytes; i++)
                        g_assert_cmphex(encoded[i], ==, 0);
                snapshot_clear(&s);
        }
}

static char *random_string(void)
{
        int length_bytes = g_test_rand_int_range(0, g_test_rand_int_range(1, 300));
        char *string = g_malloc0((gsize)length_bytes + 1);

        for (int i = 0; i < length_bytes; i++)
                string[i] = (char)g_test_rand_int_range(1, 256);
        return string;
}

static uint64_t random_u64(void)
{
        uint64_t random = (uint64_t)(uint32_t)g_test_rand_int() << 32 | (uint32_t)g_test_rand_int();

        return random >> g_test_rand_int_range(0, 64);
}

static void random_roundtrip(void)
{
        for (unsigned i = 0; i < 5000; i++) {
                struct snapshot s = {
                        .id = random_string(), .name = random_string(),
                        .l1_offset = random_u64(), .l1_entries = (uint32_t)random_u64(),
                        .date_sec = (uint32_t)random_u64(), .date_nsec = (uint32_t)random_u64(),
                        .vm_clock_nsec = random_u64(), .vm_state_bytes = random_u64(),
                        .disk_bytes = random_u64(), .icount = random_u64(),
                        .extra_bytes = (uint32_t)g_test_rand_int_range(0, 1025),
                };
                g_autofree uint8_t *b = NULL;
                struct snapshot copy;
                struct snapshot again;
                size_t byte_count;
                size_t used;

                if (s.extra_bytes > 24) {
                        s.unknown_extra = g_malloc(s.extra_bytes - 24);
                        memset(s.unknown_extra, g_test_rand_int_range(0, 256), s.extra_bytes - 24);
                }
                g_assert_cmpint(snapshot_copy(&copy, &s), ==, 0);
                assert_same(&s, &copy);
                snapshot_clear(&s);
                b = encode(&copy, &byte_count);
                g_assert_cmpint(snapshot_decode(&again, b, byte_count, 3, 0, 0, &used, NULL), ==,
                                0);
                g_assert_cmpuint(used, ==, byte_count);
                assert_same(&copy, &again);
                snapshot_clear(&copy);
                snapshot_clear(&again);
        }
}

/* No bytes do harm. */
static void random_bytes(void)
{
        for (unsigned i = 0; i < 50000; i++) {
                size_t available = (size_t)g_test_rand_int_range(0, 400);
                g_autofree uint8_t *b = g_malloc(available);
                struct snapshot s;
                size_t used;
                int ret;

                for (size_t j = 0; j < available; j++)
                        b[j] = (uint8_t)g_test_rand_int();
                if (available >= 40) {
                        be16_store(b + ID_LEN, (uint16_t)g_test_rand_int_range(0, 128));
                        be16_store(b + NAME_LEN, (uint16_t)g_test_rand_int_range(0, 128));
                        be32_store(b + EXTRA_SIZE, (uint32_t)g_test_rand_int_range(0, 128));
                }
                ret = snapshot_decode(&s, b, available, 2, 0, 0, &used, NULL);
                if (ret) {
                        g_assert_cmpint(ret, ==, -EAGAIN);
                        continue;
                }
                g_assert_cmpuint(used, <, available + 8);
                g_assert_cmpuint(used % 8, ==, 0);
                snapshot_clear(&s);
        }
}

/* ---- telling the host ---- */

static void describe_all(void)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        struct snapshot s;

        memset(info.name, 'x', sizeof(info.name));
        decode_new(&s, 24, "7", "name");
        snapshot_describe(&s, &info);
        g_assert_cmpuint(info.struct_bytes, ==, sizeof(info));
        g_assert_cmpstr(info.id_str, ==, "7");
        g_assert_cmpstr(info.name, ==, "name");
        g_assert_cmpuint(info.date_sec, ==, 1700000000);
        g_assert_cmpuint(info.date_nsec, ==, 999999999);
        g_assert_cmphex(info.vm_state_bytes, ==, UINT64_C(0x211110000));
        g_assert_cmpuint(info.vm_clock_nsec, ==, UINT64_C(123456789012345));
        g_assert_cmpuint(info.icount, ==, 424242);
        g_assert_cmpuint(info.disk_bytes, ==, 99 * 512);
        snapshot_clear(&s);
}

static void describe_long_names(void)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        g_autofree char *id = g_strnfill(128, 'i');
        g_autofree char *head = g_strnfill(253, 'n');
        g_autofree char *name = g_strconcat(head, "\xe2\x82\xac", NULL);        /* a euro sign */
        struct snapshot s;

        decode_new(&s, 24, id, name);
        snapshot_describe(&s, &info);
        g_assert_cmpuint(strlen(info.id_str), ==, 127);
        g_assert_cmpstr(info.name, ==, head);
        snapshot_clear(&s);

        /* Not UTF-8 at all: cut where it must be. */
        memset(name, 0x80, 256);
        decode_new(&s, 24, "1", name);
        snapshot_describe(&s, &info);
        g_assert_cmpuint(strlen(info.name), ==, 255);
        snapshot_clear(&s);
}

/* A host that knows fewer fields gets those, and nothing is written behind them. */
static void describe_to_an_older_host(void)
{
        size_t known_bytes = offsetof(struct hvb_snapshot_info, icount);
        struct hvb_snapshot_info info = { .struct_bytes = (uint32_t)known_bytes, .icount = 55,
                                          .disk_bytes = 66 };
        struct snapshot s;

        decode_new(&s, 24, "1", "name");
        snapshot_describe(&s, &info);
        g_assert_cmpstr(info.name, ==, "name");
        g_assert_cmpuint(info.icount, ==, 55);
        g_assert_cmpuint(info.disk_bytes, ==, 66);
        snapshot_clear(&s);
}

/* ---- judging ---- */

static const struct {
        const char *name;
        uint64_t l1_offset;
        uint32_t l1_entries;
        int code;
        const char *text;
} l1_cases[] = {
        { "good", 0x70000, 3, 0, "" },
        { "largest", 0x70000, 4u << 20, 0, "" },
        { "none", 0, 0, 0, "" },
        { "up-to-the-end", 0x3fff0000, 0x10000 / 8, 0, "" },
        { "too-large", 0x70000, (4u << 20) + 1, -EFBIG, "Snapshot L1 table too large: 4194305 "
          "entries of snapshot 's', limit 4194304" },
        { "far-too-large", 0x70000, UINT32_MAX, -EFBIG, "Snapshot L1 table too large: 4294967295 "
          "entries of snapshot 's', limit 4194304" },
        { "odd", 0x70200, 3, -EINVAL, "Snapshot L1 table offset invalid: 0x70200 of snapshot 's' "
          "is not a multiple of the cluster size 65536" },
        { "too-far", UINT64_C(1) << 56, 3, -EINVAL, "Snapshot L1 table offset invalid: "
          "0x100000000000000 of snapshot 's' is beyond the limit 72057594037927936" },
        { "wraps", UINT64_C(0xffffffffffff0000), 4u << 20, -EINVAL, "Snapshot L1 table offset "
          "invalid: 0xffffffffffff0000 of snapshot 's' is beyond the limit 72057594037927936" },
        { "header", 0, 3, -EINVAL, "Snapshot L1 table offset invalid: 0x0 of snapshot 's' lies in "
          "the header cluster, whose end is 65536" },
        { "past-the-end", 0x3fff0000, 0x10000 / 8 + 1, -EINVAL, "Snapshot L1 table offset invalid: "
          "[0x3fff0000, 0x40000008) of snapshot 's' lies beyond the end of the file (1073741824 "
          "bytes)" },
};

static void validate_l1(gconstpointer data)
{
        unsigned i = GPOINTER_TO_UINT(data);
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct snapshot s = { .id = (char *)"1", .name = (char *)"s" };
        struct geometry g;

        geometry_init(&g, 3, 16, 4);
        s.l1_offset = l1_cases[i].l1_offset;
        s.l1_entries = l1_cases[i].l1_entries;
        g_assert_cmpint(snapshot_validate_l1(&s, &g, 1u << 30, &err), ==, l1_cases[i].code);
        g_assert_cmpstr(err.text, ==, l1_cases[i].text);
}

/* ---- as qemu-img has it ---- */

static void assert_taken_now(const struct snapshot *s)
{
        g_assert_cmpint(labs((long)s->date_sec - (long)time(NULL)), <, 100);
        g_assert_cmpuint(s->date_nsec, <, 1000000000);
}

/* Both of its entries, decoded and encoded again, are the same to the byte. */
static void qemu_roundtrip(gconstpointer data)
{
        g_autofree char *create = g_strdup_printf("create -q -f qcow2 -o compat=%s",
                                                  (const char *)data);
        g_autofree char *first = g_strnfill(200, 'n');
        const char *names[] = { first, "the-second" };
        g_autofree uint8_t *bytes = NULL;
        size_t file_bytes;
        struct header h;
        size_t place;
        char *path;

        if (qemu_img_missing())
                return;
        path = image_path();
        g_free(qemu_img(create, path, "3M"));
        for (unsigned i = 0; i < 2; i++) {
                g_autofree char *snapshot = g_strdup_printf("snapshot -c %s", names[i]);

                g_free(qemu_img(snapshot, path, ""));
        }
        bytes = image_read(path, &file_bytes);
        image_remove(path);
        g_assert_cmpint(header_decode(&h, bytes, MIN(file_bytes, 65536), file_bytes, NULL), ==, 0);
        g_assert_cmpuint(h.snapshot_count, ==, 2);

        place = h.snapshots_offset;
        for (unsigned i = 0; i < 2; i++) {
                g_autofree uint8_t *encoded = NULL;
                size_t encoded_bytes;
                struct snapshot s;
                size_t used;

                g_assert_cmpint(snapshot_decode(&s, bytes + place, file_bytes - place, h.version,
                                                h.size_bytes, i, &used, NULL), ==, 0);
                g_assert_cmpstr(s.id, ==, i ? "2" : "1");
                g_assert_cmpstr(s.name, ==, names[i]);
                g_assert_cmpuint(s.disk_bytes, ==, 3u << 20);
                g_assert_cmpuint(s.vm_state_bytes, ==, 0);
                assert_taken_now(&s);
                g_assert_cmpint(snapshot_validate_l1(&s, &h.geometry, file_bytes, NULL), ==, 0);
                encoded = encode(&s, &encoded_bytes);
                g_assert_cmpuint(encoded_bytes, ==, used);
                encoded_bytes = MIN(encoded_bytes, file_bytes - place);
                g_assert_cmpmem(encoded, encoded_bytes, bytes + place, encoded_bytes);
                snapshot_clear(&s);
                place += used;
        }
        header_clear(&h);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/snapshot-table/decode/whole", decode_whole);
        g_test_add_func("/snapshot-table/decode/short-extra", decode_short_extra);
        g_test_add_func("/snapshot-table/decode/longest", decode_longest);
        g_test_add_func("/snapshot-table/decode/too-much-extra", refuse_too_much_extra);
        g_test_add_func("/snapshot-table/decode/truncated-anywhere", truncated_anywhere);
        g_test_add_func("/snapshot-table/decode/random-bytes", random_bytes);
        g_test_add_func("/snapshot-table/encode/by-hand", encode_by_hand);
        g_test_add_func("/snapshot-table/encode/large-vm-state", encode_large_vm_state);
        g_test_add_func("/snapshot-table/encode/what-was-decoded", encode_what_was_decoded);
        g_test_add_func("/snapshot-table/random-roundtrip", random_roundtrip);
        g_test_add_func("/snapshot-table/describe/all", describe_all);
        g_test_add_func("/snapshot-table/describe/long-names", describe_long_names);
        g_test_add_func("/snapshot-table/describe/older-host", describe_to_an_older_host);
        for (unsigned i = 0; i < G_N_ELEMENTS(l1_cases); i++) {
                g_autofree char *path = g_strdup_printf("/snapshot-table/l1/%s", l1_cases[i].name);

                g_test_add_data_func(path, GUINT_TO_POINTER(i), validate_l1);
        }
        g_test_add_data_func("/snapshot-table/qemu/compat-1.1", "1.1", qemu_roundtrip);
        g_test_add_data_func("/snapshot-table/qemu/compat-0.10", "0.10", qemu_roundtrip);
        return g_test_run();
}
