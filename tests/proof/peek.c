/*
 * peek.c - reading an image the plain way: no cache, no trust.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/peek.h"

#include <string.h>
#include <zlib.h>

enum {
        HEADER_BYTES = 104,
        SNAPSHOT_BYTES = 40,
        SNAPSHOTS_MAX = 64,
        L1_ENTRIES_MAX = 1 << 20,
        DISK_BYTES_MAX = 16 << 20,
};

static const uint64_t copied_bit = UINT64_C(1) << 63;
static const uint64_t compressed_bit = UINT64_C(1) << 62;
static const uint64_t zero_bit = 1;
static const uint64_t offset_bits = UINT64_C(0x00fffffffffffe00);

/* ---- bytes ---- */

static uint64_t big_endian(const uint8_t *bytes, unsigned count)
{
        uint64_t value = 0;

        while (count-- > 0)
                value = value << 8 | *bytes++;
        return value;
}

static uint64_t load_u64(const uint8_t *bytes)
{
        uint64_t value;

        memcpy(&value, bytes, sizeof(value));
        return GUINT64_FROM_BE(value);
}

static uint64_t read_u64(const struct peek *p, uint64_t offset)
{
        uint8_t bytes[8];

        sim_image_read(p->file, offset, bytes, sizeof(bytes));
        return load_u64(bytes);
}

static uint64_t cluster_bytes(const struct peek *p)
{
        return UINT64_C(1) << p->cluster_bits;
}

static uint64_t clusters(const struct peek *p, uint64_t bytes)
{
        return (bytes + cluster_bytes(p) - 1) >> p->cluster_bits;
}

/* ---- header and snapshot table ---- */

static char *read_snapshot(struct peek *p, struct peek_snapshot *s, uint64_t *at)
{
        uint8_t b[SNAPSHOT_BYTES];
        uint8_t extra[24] = { 0 };
        unsigned id_bytes, name_bytes, extra_bytes;

        sim_image_read(p->file, *at, b, sizeof(b));
        s->l1_offset = big_endian(b, 8);
        s->l1_entries = (uint32_t)big_endian(b + 8, 4);
        id_bytes = (unsigned)big_endian(b + 12, 2);
        name_bytes = (unsigned)big_endian(b + 14, 2);
        s->vm_state_bytes = big_endian(b + 32, 4);
        s->disk_bytes = p->disk_bytes;
        extra_bytes = (unsigned)big_endian(b + 36, 4);
        if (id_bytes >= sizeof(s->id) || name_bytes >= sizeof(s->name) || extra_bytes > 1024)
                return g_strdup_printf("snapshot at %#" G_GINT64_MODIFIER "x: lengths %u, %u, %u",
                                       *at, id_bytes, name_bytes, extra_bytes);
        *at += SNAPSHOT_BYTES;
        sim_image_read(p->file, *at, extra, MIN(extra_bytes, sizeof(extra)));
        if (extra_bytes >= 8)
                s->vm_state_bytes = big_endian(extra, 8);
        if (extra_bytes >= 16)
                s->disk_bytes = big_endian(extra + 8, 8);
        *at += extra_bytes;
        sim_image_read(p->file, *at, s->id, id_bytes);
        sim_image_read(p->file, *at + id_bytes, s->name, name_bytes);
        *at = (*at + id_bytes + name_bytes + 7) & ~UINT64_C(7);
        if (s->l1_entries > L1_ENTRIES_MAX || s->disk_bytes > DISK_BYTES_MAX ||
            s->vm_state_bytes > DISK_BYTES_MAX)
                return g_strdup_printf("snapshot %s: L1 of %u entries, disk of %" G_GUINT64_FORMAT
                                       " bytes", s->id, s->l1_entries, s->disk_bytes);
        return NULL;
}

static char *read_snapshots(struct peek *p)
{
        uint64_t at = p->snapshots_offset;
        uint32_t i;

        if (p->snapshot_count > SNAPSHOTS_MAX)
                return g_strdup_printf("%u snapshots", p->snapshot_count);
        p->snapshots = g_new0(struct peek_snapshot, p->snapshot_count + 1);
        for (i = 0; i < p->snapshot_count; i++) {
                char *why = read_snapshot(p, &p->snapshots[i], &at);

                if (why)
                        return why;
        }
        p->snapshots_bytes = at - p->snapshots_offset;
        return NULL;
}

char *peek_open(struct peek *p, const struct sim_image *file, GBytes *backing)
{
        uint8_t h[HEADER_BYTES];

        *p = (struct peek){ .file = file, .backing = backing, .refcount_order = 4 };
        sim_image_read(file, 0, h, sizeof(h));
        p->version = (unsigned)big_endian(h + 4, 4);
        p->cluster_bits = (unsigned)big_endian(h + 20, 4);
        p->disk_bytes = big_endian(h + 24, 8);
        p->l1_entries = (uint32_t)big_endian(h + 36, 4);
        p->l1_offset = big_endian(h + 40, 8);
        p->reftable_offset = big_endian(h + 48, 8);
        p->reftable_clusters = (uint32_t)big_endian(h + 56, 4);
        p->snapshot_count = (uint32_t)big_endian(h + 60, 4);
        p->snapshots_offset = big_endian(h + 64, 8);
        if (big_endian(h, 4) != 0x514649fb || p->version < 2 || p->version > 3)
                return g_strdup("no qcow2 header");
        if (p->version == 3) {
                p->incompatible = big_endian(h + 72, 8);
                p->compatible = big_endian(h + 80, 8);
                p->refcount_order = (unsigned)big_endian(h + 96, 4);
        }
        if (p->cluster_bits < 9 || p->cluster_bits > 21 || p->refcount_order > 6 ||
            p->l1_entries > L1_ENTRIES_MAX || p->disk_bytes > DISK_BYTES_MAX ||
            p->reftable_clusters > 64)
                return g_strdup("header fields out of range");
        return read_snapshots(p);
}

void peek_clear(struct peek *p)
{
        g_free(p->snapshots);
        p->snapshots = NULL;
}

/* ---- content ---- */

/* Section "Compressed Clusters Descriptor". */
static void compressed_place(const struct peek *p, uint64_t entry, uint64_t *ret_offset,
                             uint64_t *ret_bytes)
{
        unsigned shift = 62 - (p->cluster_bits - 8);
        uint64_t sectors = ((entry & (compressed_bit - 1)) >> shift) + 1;

        *ret_offset = entry & ((UINT64_C(1) << shift) - 1);
        *ret_bytes = sectors * 512 - *ret_offset % 512;
}

static GBytes *inflate_bytes(const struct peek *p, GBytes *stream)
{
        uint8_t *to = g_malloc0(cluster_bytes(p));
        z_stream z = { .next_out = to, .avail_out = (unsigned)cluster_bytes(p) };
        gsize bytes;

        z.next_in = (uint8_t *)g_bytes_get_data(stream, &bytes);
        z.avail_in = (unsigned)bytes;
        if (inflateInit2(&z, -12) == Z_OK) {
                inflate(&z, Z_FINISH);
                inflateEnd(&z);
        }
        return g_bytes_new_take(to, cluster_bytes(p));
}

/* The same streams come again in every state: each is inflated once. */
static void read_compressed(const struct peek *p, uint64_t entry, uint8_t *to)
{
        static GHashTable *known;       /* stream -> cluster */
        GBytes *stream, *cluster;
        uint64_t offset, bytes;
        uint8_t *from;

        compressed_place(p, entry, &offset, &bytes);
        from = g_malloc(bytes);
        sim_image_read(p->file, offset, from, bytes);
        stream = g_bytes_new_take(from, bytes);
        if (!known)
                known = g_hash_table_new_full(g_bytes_hash, g_bytes_equal,
                                              (GDestroyNotify)g_bytes_unref,
                                              (GDestroyNotify)g_bytes_unref);
        if (g_hash_table_size(known) > 256)
                g_hash_table_remove_all(known);
        cluster = g_hash_table_lookup(known, stream);
        if (!cluster) {
                cluster = inflate_bytes(p, stream);
                g_hash_table_insert(known, g_bytes_ref(stream), cluster);
        }
        memcpy(to, g_bytes_get_data(cluster, NULL), cluster_bytes(p));
        g_bytes_unref(stream);
}

static void read_backing(const struct peek *p, uint64_t guest_offset, uint8_t *to)
{
        gsize size = 0;
        const uint8_t *data = p->backing ? g_bytes_get_data(p->backing, &size) : NULL;
        uint64_t n = guest_offset < size ? MIN(cluster_bytes(p), size - guest_offset) : 0;

        memset(to, 0, cluster_bytes(p));
        if (n > 0)
                memcpy(to, data + guest_offset, n);
}

/* Returns the L2 entry of a guest cluster; 0: none. */
static uint64_t l2_entry(const struct peek *p, uint64_t l1_offset, uint32_t l1_entries,
                         uint64_t guest_cluster)
{
        unsigned l2_bits = p->cluster_bits - 3;
        uint64_t slot = guest_cluster >> l2_bits;
        uint64_t table;

        if (slot >= l1_entries)
                return 0;
        table = read_u64(p, l1_offset + slot * 8) & offset_bits;
        if (table == 0)
                return 0;
        return read_u64(p, table + (guest_cluster & ((UINT64_C(1) << l2_bits) - 1)) * 8);
}

static GBytes *read_range(const struct peek *p, uint64_t l1_offset, uint32_t l1_entries,
                          uint64_t first, uint64_t bytes, bool is_disk)
{
        uint64_t count = clusters(p, bytes);
        uint8_t *data = g_malloc((count << p->cluster_bits) + 1);
        uint64_t i;

        for (i = 0; i < count; i++) {
                uint64_t cluster = (first >> p->cluster_bits) + i;
                uint64_t entry = l2_entry(p, l1_offset, l1_entries, cluster);
                uint8_t *to = data + (i << p->cluster_bits);

                if (entry & compressed_bit)
                        read_compressed(p, entry, to);
                else if ((entry & zero_bit) && p->version >= 3)
                        memset(to, 0, cluster_bytes(p));
                else if (entry & offset_bits)
                        sim_image_read(p->file, entry & offset_bits, to, cluster_bytes(p));
                else if (is_disk)
                        read_backing(p, cluster << p->cluster_bits, to);
                else
                        memset(to, 0, cluster_bytes(p));
        }
        return g_bytes_new_take(data, bytes);
}

GBytes *peek_disk(const struct peek *p, uint64_t l1_offset, uint32_t l1_entries,
                  uint64_t disk_bytes)
{
        return read_range(p, l1_offset, l1_entries, 0, disk_bytes, true);
}

GBytes *peek_vm_state(const struct peek *p, const struct peek_snapshot *s)
{
        uint64_t span = cluster_bytes(p) << (p->cluster_bits - 3);
        uint64_t first = (s->disk_bytes + span - 1) / span * span;

        return read_range(p, s->l1_offset, s->l1_entries, first, s->vm_state_bytes, false);
}

/* ---- counts ---- */

struct census {
        const struct peek *p;
        uint64_t cluster_count;
        uint16_t *references;
        uint64_t *counts;
        uint8_t *table;                 /* room for a cluster, of tables that are gone through */
};

/* Reads it all into c->table; most of a table is empty. */
static void read_table(struct census *c, uint64_t offset)
{
        sim_image_read(c->p->file, offset, c->table, cluster_bytes(c->p));
}

/* The next entry of c->table from byte i on that is not 0; false: none is. */
static bool next_entry(const struct census *c, uint64_t *i, uint64_t *ret_entry)
{
        static const uint8_t zeros[512];

        for (; *i < cluster_bytes(c->p); *i += 8) {
                if (*i % sizeof(zeros) == 0 && memcmp(c->table + *i, zeros, sizeof(zeros)) == 0) {
                        *i += sizeof(zeros) - 8;
                        continue;
                }
                *ret_entry = load_u64(c->table + *i);
                if (*ret_entry != 0)
                        return true;
        }
        return false;
}

static void refer(struct census *c, uint64_t offset, uint64_t bytes)
{
        uint64_t first = offset >> c->p->cluster_bits;
        uint64_t end = clusters(c->p, offset + bytes);

        for (; bytes > 0 && first < MIN(end, c->cluster_count); first++)
                c->references[first]++;
}

static void refer_entry(struct census *c, uint64_t entry)
{
        uint64_t offset, bytes;

        if (entry & compressed_bit) {
                compressed_place(c->p, entry, &offset, &bytes);
                refer(c, offset, bytes);
        } else if (entry & offset_bits) {
                refer(c, entry & offset_bits, cluster_bytes(c->p));
        }
}

static void refer_tree(struct census *c, uint64_t l1_offset, uint32_t l1_entries)
{
        uint32_t slot;

        refer(c, l1_offset, l1_entries * UINT64_C(8));
        for (slot = 0; slot < l1_entries; slot++) {
                uint64_t offset = read_u64(c->p, l1_offset + slot * UINT64_C(8)) & offset_bits;

                if (offset == 0)
                        continue;
                refer(c, offset, cluster_bytes(c->p));
                read_table(c, offset);
                for (uint64_t i = 0, entry; next_entry(c, &i, &entry); i += 8)
                        refer_entry(c, entry);
        }
}

static void refer_refcounts(struct census *c)
{
        const struct peek *p = c->p;

        refer(c, p->reftable_offset, (uint64_t)p->reftable_clusters << p->cluster_bits);
        for (uint32_t n = 0; n < p->reftable_clusters; n++) {
                read_table(c, p->reftable_offset + ((uint64_t)n << p->cluster_bits));
                for (uint64_t i = 0, block; next_entry(c, &i, &block); i += 8)
                        refer(c, block & ~UINT64_C(511), cluster_bytes(p));
        }
}

static void refer_all(struct census *c)
{
        const struct peek *p = c->p;
        uint32_t i;

        refer(c, 0, 1);
        refer_refcounts(c);
        refer_tree(c, p->l1_offset, p->l1_entries);
        if (p->snapshot_count > 0)
                refer(c, p->snapshots_offset, p->snapshots_bytes);
        for (i = 0; i < p->snapshot_count; i++)
                refer_tree(c, p->snapshots[i].l1_offset, p->snapshots[i].l1_entries);
}

/* Count number index of those in c->table. */
static uint64_t count_in_table(const struct census *c, uint64_t index)
{
        unsigned width = 1u << c->p->refcount_order;
        const uint8_t *bytes = c->table + index * width / 8;

        if (width >= 8)
                return big_endian(bytes, width / 8);
        return bytes[0] >> (index * width % 8) & ((1u << width) - 1);
}

static void read_counts(struct census *c)
{
        const struct peek *p = c->p;
        uint64_t per_block = UINT64_C(1) << (p->cluster_bits + 3 - p->refcount_order);
        uint64_t slots = (uint64_t)p->reftable_clusters << (p->cluster_bits - 3);

        for (uint64_t slot = 0; slot < slots && slot * per_block < c->cluster_count; slot++) {
                uint64_t block = read_u64(p, p->reftable_offset + slot * 8) & ~UINT64_C(511);
                uint64_t first = slot * per_block;

                if (block == 0)
                        continue;
                read_table(c, block);
                for (uint64_t i = 0; i < MIN(per_block, c->cluster_count - first); i++)
                        c->counts[first + i] = count_in_table(c, i);
        }
}

static void judge_entry(struct peek_counts *r, const struct census *c, uint64_t entry)
{
        uint64_t cluster = (entry & offset_bits) >> c->p->cluster_bits;
        uint64_t count;

        if ((entry & compressed_bit) || !(entry & offset_bits) || cluster >= c->cluster_count)
                return;
        count = c->counts[cluster];
        if (!(entry & copied_bit)) {
                if (count == 1 && r->copied_clear++ == 0)
                        r->first_clear = entry & offset_bits;
        } else if (c->references[cluster] > 1) {
                if (r->copied_shared++ == 0)
                        r->first_shared = entry & offset_bits;
        } else if (count > 1) {
                r->copied_high++;
        }
}

static void judge_copied(struct peek_counts *r, struct census *c)
{
        const struct peek *p = c->p;
        uint32_t slot;

        for (slot = 0; slot < p->l1_entries; slot++) {
                uint64_t entry = read_u64(p, p->l1_offset + slot * UINT64_C(8));

                judge_entry(r, c, entry);
                if (!(entry & offset_bits))
                        continue;
                read_table(c, entry & offset_bits);
                for (uint64_t i = 0; next_entry(c, &i, &entry); i += 8)
                        judge_entry(r, c, entry);
        }
}

struct peek_counts peek_counts(const struct peek *p)
{
        struct census c = { .p = p };
        struct peek_counts r = { .below = 0 };
        uint64_t i;

        /* Clusters may be referred to that the file does not reach yet: some slack. */
        c.cluster_count = clusters(p, p->file->length_bytes) + 64;
        c.references = g_new0(uint16_t, c.cluster_count);
        c.counts = g_new0(uint64_t, c.cluster_count);
        c.table = g_malloc(cluster_bytes(p));
        refer_all(&c);
        read_counts(&c);
        for (i = 0; i < c.cluster_count; i++) {
                uint64_t count = c.counts[i];

                if (count < c.references[i] && r.below++ == 0)
                        r.first_below = i << p->cluster_bits;
                r.leaked += count > c.references[i];
        }
        judge_copied(&r, &c);
        g_free(c.table);
        g_free(c.counts);
        g_free(c.references);
        return r;
}
