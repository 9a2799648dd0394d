/*
 * test-vm-state.c - the bytes of a VM state: each field at, below and beyond its limit.
 *
 * The bytes are laid by hand from the table in vm-state.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <zlib.h>

#include "host/error.h"
#include "snapshot/page-map.h"
#include "snapshot/state.h"
#include "snapshot/vm-state.h"

#define MIB (UINT64_C(1) << 20)

/* 4 MiB of RAM at 2 MiB, behind it the map (1024 pages), table, two sections. */
#define RAM_BYTES (4 * MIB)
#define MAP_OFFSET (6 * MIB)
#define MAP_BYTES (1024 / 8 + 1024 * 4)
#define TABLE_OFFSET (MAP_OFFSET + 8192)
#define SECTION_OFFSET (TABLE_OFFSET + 128)
#define STATE_BYTES (SECTION_OFFSET + 16)

struct laid {
        uint8_t page[4096];
        uint8_t table[2 * 256];
        uint64_t limit_bytes;
};

static void lay(uint8_t *at, unsigned bytes, uint64_t value)
{
        for (unsigned i = 0; i < bytes; i++)
                at[i] = (uint8_t) (value >> 8 * (bytes - 1 - i));
}

static void lay_entry(uint8_t *entry, const char *name, uint32_t instance, uint64_t offset,
                      uint64_t bytes)
{
        memcpy(entry, name, strlen(name));
        lay(entry + 32, 4, instance);
        lay(entry + 36, 4, 1);
        lay(entry + 44, 4, 0xabcdef01);
        lay(entry + 48, 8, offset);
        lay(entry + 56, 8, bytes);
}

static void seal(struct laid *l)
{
        uint32_t header_bytes = (uint32_t) l->page[18] << 8 | l->page[19];

        lay(l->page + 20, 4, 0);
        lay(l->page + 20, 4, crc32(0, l->page, MIN(header_bytes, 4096)));
}

static void seal_table(struct laid *l)
{
        lay(l->page + 92, 4, crc32(0, l->table, 128));
        seal(l);
}

static void lay_all(struct laid *l)
{
        memset(l, 0, sizeof(*l));
        memcpy(l->page, "hvvmstat", 8);
        lay(l->page + 8, 4, 1);
        lay(l->page + 12, 4, 1);
        lay(l->page + 16, 4, 112);
        lay(l->page + 24, 8, STATE_BYTES);
        lay(l->page + 32, 8, RAM_BYTES);
        lay(l->page + 40, 8, 2 * MIB);
        lay(l->page + 48, 4, 4096);
        lay(l->page + 52, 4, 2);
        lay(l->page + 56, 8, MAP_OFFSET);
        lay(l->page + 64, 8, MAP_BYTES);
        lay(l->page + 72, 4, 0x12345678);
        lay(l->page + 76, 4, 2);
        lay(l->page + 80, 8, TABLE_OFFSET);
        lay(l->page + 88, 4, 64);
        lay(l->page + 96, 8, 123456789);
        lay(l->page + 104, 8, 7);
        lay_entry(l->table, "vcpu", 0, SECTION_OFFSET, 8);
        lay_entry(l->table + 64, "vcpu", 1, SECTION_OFFSET + 8, 8);
        l->limit_bytes = STATE_BYTES;
        seal_table(l);
}

static void judge(const struct laid *l, int expected, const char *words)
{
        struct hvb_error err = ERROR_INIT;
        struct vm_state_header h = { .format = 77 };
        int ret = vm_state_header_decode(l->page, l->limit_bytes, &h, &err);

        if (ret != expected)
                g_test_message("'%s' expected, but '%s'", words, err.text);
        g_assert_cmpint(ret, ==, expected);
        g_assert_cmpint(err.code, ==, expected);
        if (expected == 0)
                return;
        g_assert_cmpuint(h.format, ==, 77);
        if (strstr(err.text, words) == NULL)
                g_error("'%s' does not say '%s'", err.text, words);
}

static void test_header(void)
{
        struct hvb_error err = ERROR_INIT;
        struct vm_state_header h;
        uint8_t again[4096];
        struct laid l;

        lay_all(&l);
        g_assert_cmpint(vm_state_header_decode(l.page, l.limit_bytes, &h, &err), ==, 0);
        g_assert_cmpuint(h.state_bytes, ==, STATE_BYTES);
        g_assert_cmpuint(h.ram_bytes, ==, RAM_BYTES);
        g_assert_cmpuint(h.ram_offset, ==, 2 * MIB);
        g_assert_cmpuint(h.cpu_count, ==, 2);
        g_assert_cmpuint(h.map_offset, ==, MAP_OFFSET);
        g_assert_cmpuint(h.map_bytes, ==, MAP_BYTES);
        g_assert_cmphex(h.map_sum, ==, 0x12345678);
        g_assert_cmpuint(h.section_count, ==, 2);
        g_assert_cmpuint(h.table_offset, ==, TABLE_OFFSET);
        g_assert_cmpuint(h.clock_nsec, ==, 123456789);
        g_assert_cmpuint(h.stored_pages, ==, 7);
        vm_state_header_encode(&h, again);
        g_assert_cmpmem(again, 4096, l.page, 4096);
}

/* One field of the header with one value. */
struct field_case {
        unsigned offset, bytes;
        uint64_t value;
        int expected;
        const char *words;
};

static const struct field_case field_cases[] = {
        { 0, 4, 0x5145564d, -ENOTSUP, "QEMU's" },
        { 0, 8, 0, -EINVAL, "no VM state" },
        { 7, 1, 'T', -EINVAL, "no VM state" },
        { 8, 4, 0, -EINVAL, "oldest_reader" },
        { 8, 4, UINT32_MAX, 0, "" },                    /* newer, but we may read it */
        { 12, 4, 0, -EINVAL, "oldest_reader" },
        { 12, 4, 2, -ENOTSUP, "needs a reader of format 2" },
        { 16, 4, 104, -EINVAL, "header_bytes" },
        { 16, 4, 111, -EINVAL, "header_bytes" },
        { 16, 4, 113, 0, "" },
        { 16, 4, 4096, 0, "" },
        { 16, 4, 4097, -EINVAL, "header_bytes" },
        { 16, 4, UINT32_MAX, -EINVAL, "header_bytes" },
        { 24, 8, STATE_BYTES + 1, -EINVAL, "truncated" },
        { 24, 8, UINT64_MAX, -EINVAL, "truncated" },
        { 24, 8, TABLE_OFFSET + 128, 0, "" },
        { 24, 8, TABLE_OFFSET + 127, -EINVAL, "behind state_bytes" },
        { 24, 8, 0, -EINVAL, "behind state_bytes" },
        { 32, 8, 0, -EINVAL, "ram_bytes" },
        { 32, 8, RAM_BYTES + 4096, -EINVAL, "ram_bytes" },
        { 32, 8, RAM_BYTES - MIB, -EINVAL, "stored_pages|map_bytes" },
        { 32, 8, UINT64_C(16) << 40, -EINVAL, "map_bytes" },
        { 32, 8, (UINT64_C(16) << 40) + MIB, -EINVAL, "ram_bytes" },
        { 32, 8, UINT64_MAX - MIB + 1, -EINVAL, "ram_bytes" },
        { 40, 8, 0, -EINVAL, "ram_offset" },
        { 40, 8, MIB, -EINVAL, "ram_offset" },
        { 40, 8, 4 * MIB, -EINVAL, "RAM" },
        { 40, 8, UINT64_C(1) << 62, -EINVAL, "behind state_bytes" },
        { 40, 8, UINT64_C(1) << 63, -EINVAL, "ram_offset" },
        { 40, 8, UINT64_MAX - 2 * MIB + 1, -EINVAL, "ram_offset" },
        { 48, 4, 4095, -EINVAL, "page_bytes" },
        { 48, 4, 8192, -EINVAL, "page_bytes" },
        { 52, 4, 0, -EINVAL, "cpu_count" },
        { 52, 4, 1, 0, "" },
        { 52, 4, 4096, 0, "" },
        { 52, 4, 4097, -EINVAL, "cpu_count" },
        { 56, 8, 0, -EINVAL, "map_offset" },
        { 56, 8, 4096, 0, "" },
        { 56, 8, 4095, -EINVAL, "map_offset" },
        { 56, 8, MAP_OFFSET + 4, -EINVAL, "map_offset" },
        { 56, 8, MAP_OFFSET - 8, -EINVAL, "overlaps RAM" },
        { 56, 8, TABLE_OFFSET - MAP_BYTES, 0, "" },
        { 56, 8, TABLE_OFFSET - MAP_BYTES + 8, -EINVAL, "overlaps the page map" },
        { 56, 8, UINT64_MAX - 7, -EINVAL, "map_offset" },
        { 64, 8, MAP_BYTES - 1, -EINVAL, "map_bytes" },
        { 64, 8, MAP_BYTES + 1, -EINVAL, "map_bytes" },
        { 64, 8, UINT64_MAX, -EINVAL, "map_bytes" },
        { 76, 4, 0, -EINVAL, "section_count" },
        { 76, 4, 1, 0, "" },
        { 76, 4, 3, -EINVAL, "|" },
        { 76, 4, 8193, -EINVAL, "section_count" },
        { 80, 8, 0, -EINVAL, "table_offset" },
        { 80, 8, TABLE_OFFSET + 1, -EINVAL, "table_offset" },
        { 80, 8, TABLE_OFFSET + 16, 0, "" },
        { 80, 8, TABLE_OFFSET + 24, -EINVAL, "behind state_bytes" },
        { 80, 8, 8192, 0, "" },
        { 80, 8, UINT64_MAX - 7, -EINVAL, "table_offset" },
        { 88, 4, 56, -EINVAL, "entry_bytes" },
        { 88, 4, 68, -EINVAL, "entry_bytes" },
        { 88, 4, 72, 0, "" },
        { 88, 4, 80, -EINVAL, "behind state_bytes" },
        { 88, 4, 264, -EINVAL, "entry_bytes" },
        { 104, 8, 1024, 0, "" },
        { 104, 8, 1025, -EINVAL, "stored_pages" },
};

static bool says_one_of(const char *text, const char *words)
{
        g_auto(GStrv) parts = g_strsplit(words, "|", -1);

        for (unsigned i = 0; parts[i] != NULL; i++)
                if (strstr(text, parts[i]) != NULL)
                        return true;
        return false;
}

static void test_fields(void)
{
        for (size_t i = 0; i < G_N_ELEMENTS(field_cases); i++) {
                const struct field_case *c = &field_cases[i];
                struct hvb_error err = ERROR_INIT;
                struct vm_state_header h;
                struct laid l;
                int ret;

                lay_all(&l);
                lay(l.page + c->offset, c->bytes, c->value);
                seal(&l);
                ret = vm_state_header_decode(l.page, l.limit_bytes, &h, &err);
                if (ret != c->expected || (ret < 0 && !says_one_of(err.text, c->words)))
                        g_error("field at %u, value %" G_GUINT64_FORMAT ": %d '%s', expected %d "
                                "'%s'", c->offset, c->value, ret, err.text, c->expected,
                                c->words);
        }
}

/* Any byte that the sum covers. */
static void test_sum(void)
{
        struct laid l;

        for (unsigned i = 8; i < 112; i++) {
                lay_all(&l);
                l.page[i] ^= 1;
                judge(&l, -EINVAL, i >= 16 && i < 20 ? "" : "damaged");
        }
        lay_all(&l);
        l.page[112] = 1;                        /* a newer version's field, not covered */
        judge(&l, 0, "");
        l.limit_bytes--;
        judge(&l, -EINVAL, "truncated");
        l.limit_bytes = 0;
        judge(&l, -EINVAL, "truncated");
}

static int decode_table(struct laid *l, struct vm_state_section **ret_sections,
                        struct hvb_error *err)
{
        struct vm_state_header h;

        g_assert_cmpint(vm_state_header_decode(l->page, l->limit_bytes, &h, err), ==, 0);
        return vm_state_sections_decode(&h, l->table, ret_sections, err);
}

static void test_sections(void)
{
        g_autofree struct vm_state_section *sections = NULL;
        struct hvb_error err = ERROR_INIT;
        uint8_t again[64];
        struct laid l;

        lay_all(&l);
        lay(l.table + 64 + 40, 4, 1);
        seal_table(&l);
        g_assert_cmpint(decode_table(&l, &sections, &err), ==, 0);
        g_assert_cmpstr(sections[0].name, ==, "vcpu");
        g_assert_cmpuint(sections[1].instance, ==, 1);
        g_assert_cmpuint(sections[1].version, ==, 1);
        g_assert_cmphex(sections[1].sum, ==, 0xabcdef01);
        g_assert_cmpuint(sections[1].offset, ==, SECTION_OFFSET + 8);
        g_assert_cmpuint(sections[1].bytes, ==, 8);
        g_assert_cmpuint(sections[0].flags, ==, 0);
        g_assert_cmpuint(sections[1].flags, ==, VM_STATE_OPTIONAL);
        vm_state_section_encode(&sections[1], again);
        g_assert_cmpmem(again, 64, l.table + 64, 64);
}

static const struct field_case entry_cases[] = {
        { 0, 1, 0, -EINVAL, "has 0 bytes" },
        { 1, 1, ' ', -EINVAL, "byte 0x20" },
        { 1, 1, 0xff, -EINVAL, "byte 0xff" },
        { 32, 4, 1, -EINVAL, "is there twice" },
        { 32, 4, 2, 0, "" },
        { 40, 4, UINT32_MAX, 0, "" },
        { 48, 8, SECTION_OFFSET + 1, -EINVAL, "overlaps" },
        { 48, 8, TABLE_OFFSET + 127, -EINVAL, "overlaps" },
        { 48, 8, TABLE_OFFSET - 8, 0, "" },
        { 48, 8, TABLE_OFFSET - 7, -EINVAL, "overlaps" },
        { 48, 8, 0, -EINVAL, "overlaps" },
        { 48, 8, 4096, 0, "" },
        { 48, 8, 2 * MIB - 7, -EINVAL, "overlaps" },
        { 48, 8, 4 * MIB, -EINVAL, "overlaps RAM" },
        { 48, 8, STATE_BYTES - 7, -EINVAL, "behind state_bytes" },
        { 48, 8, UINT64_MAX, -EINVAL, "behind state_bytes" },
        { 48, 8, UINT64_MAX - 7, -EINVAL, "behind state_bytes" },
        { 56, 8, 0, 0, "" },
        { 56, 8, 9, -EINVAL, "overlaps" },
        { 56, 8, 16 << 20, -EINVAL, "behind state_bytes" },
        { 56, 8, (16 << 20) + 1, -EINVAL, "limit" },
        { 56, 8, UINT64_MAX, -EINVAL, "limit" },
};

static void test_entries(void)
{
        for (size_t i = 0; i < G_N_ELEMENTS(entry_cases); i++) {
                const struct field_case *c = &entry_cases[i];
                struct vm_state_section *sections = NULL;
                struct hvb_error err = ERROR_INIT;
                struct laid l;
                int ret;

                lay_all(&l);
                lay(l.table + c->offset, c->bytes, c->value);
                seal_table(&l);
                ret = decode_table(&l, &sections, &err);
                if (ret != c->expected || (ret < 0 && strstr(err.text, c->words) == NULL))
                        g_error("entry's field at %u, value %" G_GUINT64_FORMAT ": %d '%s', "
                                "expected %d '%s'", c->offset, c->value, ret, err.text,
                                c->expected, c->words);
                g_assert_true((sections == NULL) == (ret < 0));
                g_free(sections);
        }
}

static void test_long_name(void)
{
        struct vm_state_section *sections = NULL;
        struct hvb_error err = ERROR_INIT;
        struct laid l;

        lay_all(&l);
        memset(l.table, 'n', 31);
        seal_table(&l);
        g_assert_cmpint(decode_table(&l, &sections, &err), ==, 0);
        g_assert_cmpuint(strlen(sections[0].name), ==, 31);
        g_clear_pointer(&sections, g_free);
        l.table[31] = 'n';
        seal_table(&l);
        g_assert_cmpint(decode_table(&l, &sections, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "has 32 bytes"));
        lay_all(&l);
        l.table[100] ^= 1;
        g_assert_cmpint(decode_table(&l, &sections, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "table is damaged"));
}

/* A newer writer's longer entries: what is behind the known fields is not looked at. */
static void test_longer_entries(void)
{
        g_autofree struct vm_state_section *sections = NULL;
        struct hvb_error err = ERROR_INIT;
        struct laid l;

        lay_all(&l);
        memset(l.table, 0xff, sizeof(l.table));
        memset(l.table, 0, 64);
        memset(l.table + 72, 0, 64);
        lay_entry(l.table, "vcpu", 0, SECTION_OFFSET + 16, 0);
        lay_entry(l.table + 72, "clock", 0, SECTION_OFFSET + 16, 0);
        lay(l.page + 88, 4, 72);
        lay(l.page + 92, 4, crc32(0, l.table, 144));
        seal(&l);
        g_assert_cmpint(decode_table(&l, &sections, &err), ==, 0);
        g_assert_cmpstr(sections[1].name, ==, "clock");
}

static void test_section_sum(void)
{
        struct vm_state_section s = { .name = "x", .bytes = 4 };
        struct hvb_error err = ERROR_INIT;

        s.sum = crc32(0, (const uint8_t *) "abcd", 4);
        g_assert_cmpint(vm_state_section_check(&s, (const uint8_t *) "abcd", &err), ==, 0);
        g_assert_cmpint(vm_state_section_check(&s, (const uint8_t *) "abce", &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "'x' 0 is damaged"));
}

static void test_page_map(void)
{
        struct hvb_error err = ERROR_INIT;
        struct page_map map;
        uint32_t sum;

        g_assert_cmpuint(page_map_bytes(256), ==, 32 + 1024);
        g_assert_cmpint(page_map_init(&map, 256, &err), ==, 0);
        g_assert_cmpuint(page_map_run(&map, 0, UINT64_MAX), ==, 256);
        for (unsigned page = 60; page < 133; page++)
                page_map_set(&map, page, 0x01020304 + page);
        page_map_set(&map, 255, 9);
        g_assert_cmphex(map.bytes[7], ==, 0xf0);        /* pages 60..63 */
        g_assert_cmphex(map.bytes[16], ==, 0x1f);       /* pages 128..132 */
        g_assert_cmpmem(map.bytes + 32 + 60 * 4, 4, "\x01\x02\x03\x40", 4);
        g_assert_cmpuint(page_map_run(&map, 0, 256), ==, 60);
        g_assert_cmpuint(page_map_run(&map, 59, 256), ==, 1);
        g_assert_cmpuint(page_map_run(&map, 60, 256), ==, 73);
        g_assert_cmpuint(page_map_run(&map, 60, 64), ==, 64);
        g_assert_cmpuint(page_map_run(&map, 132, 256), ==, 1);
        g_assert_cmpuint(page_map_run(&map, 133, 256), ==, 122);
        g_assert_cmpuint(page_map_run(&map, 255, 256), ==, 1);
        g_assert_true(page_map_has(&map, 64));
        g_assert_false(page_map_has(&map, 133));
        g_assert_cmphex(page_map_sum(&map, 61), ==, 0x01020341);
        g_assert_cmpuint(page_map_count(&map), ==, 74);

        sum = crc32(0, map.bytes, 32 + 1024);
        g_assert_cmpint(page_map_check(&map, sum, 74, &err), ==, 0);
        g_assert_cmpint(page_map_check(&map, sum, 73, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "has 74 pages"));
        g_assert_cmpint(page_map_check(&map, sum ^ 1, 74, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "map is damaged"));
        page_map_clear(&map);
}

static void test_state(void)
{
        static const uint8_t laid[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 'x' };
        struct state_writer *w = state_writer_new();
        struct state_reader r = { laid, sizeof(laid), false };
        uint8_t bytes[3];
        size_t count;

        g_assert_cmphex(state_get_u8(&r), ==, 1);
        g_assert_cmphex(state_get_u16(&r), ==, 0x0203);
        g_assert_cmphex(state_get_u32(&r), ==, 0x04050607);
        g_assert_cmphex(state_get_u64(&r), ==, UINT64_C(0x08090a0b0c0d0e0f));
        g_assert_cmpint(state_reader_end(&r), ==, -EINVAL);
        state_get_bytes(&r, bytes, 1);
        g_assert_cmpint(bytes[0], ==, 'x');
        g_assert_cmpint(state_reader_end(&r), ==, 0);

        r = (struct state_reader) { laid, 2, false };
        g_assert_cmphex(state_get_u32(&r), ==, 0);
        g_assert_cmphex(state_get_u8(&r), ==, 0);
        g_assert_cmpint(state_reader_end(&r), ==, -EINVAL);
        r = (struct state_reader) { laid, 2, false };
        state_get_bytes(&r, bytes, 3);
        g_assert_cmpmem(bytes, 3, "\1\2\0", 3);
        g_assert_cmpint(state_reader_end(&r), ==, -EINVAL);

        state_put_u8(w, 1);
        state_put_u16(w, 0x0203);
        state_put_u32(w, 0x04050607);
        state_put_u64(w, UINT64_C(0x08090a0b0c0d0e0f));
        state_put_bytes(w, "x", 1);
        g_assert_cmpmem(state_writer_bytes(w, &count), 16, laid, sizeof(laid));
        g_assert_cmpuint(count, ==, 16);
        g_assert_cmpint(state_writer_error(w), ==, 0);
        state_writer_free(w);
}

/* The limit is kept: what is beyond is an error, and nothing is written any more. */
static void test_state_limit(void)
{
        g_autofree uint8_t *many = g_malloc0(STATE_WRITER_MAX_BYTES);
        struct state_writer *w = state_writer_new();
        size_t count;

        state_put_bytes(w, many, STATE_WRITER_MAX_BYTES);
        g_assert_cmpint(state_writer_error(w), ==, 0);
        state_put_u8(w, 1);
        g_assert_cmpint(state_writer_error(w), ==, -EFBIG);
        state_writer_bytes(w, &count);
        g_assert_cmpuint(count, ==, STATE_WRITER_MAX_BYTES);
        state_writer_free(w);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/vm-state/header", test_header);
        g_test_add_func("/vm-state/header/fields", test_fields);
        g_test_add_func("/vm-state/header/sum", test_sum);
        g_test_add_func("/vm-state/sections", test_sections);
        g_test_add_func("/vm-state/sections/fields", test_entries);
        g_test_add_func("/vm-state/sections/names", test_long_name);
        g_test_add_func("/vm-state/sections/longer-entries", test_longer_entries);
        g_test_add_func("/vm-state/sections/sum", test_section_sum);
        g_test_add_func("/vm-state/page-map", test_page_map);
        g_test_add_func("/vm-state/state", test_state);
        g_test_add_func("/vm-state/state/limit", test_state_limit);
        return g_test_run();
}
