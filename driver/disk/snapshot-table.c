/*
 * snapshot-table.c - one entry of the snapshot table.
 *
 * On disk an entry is a fixed part, extra data, the id and the name, padded to
 * 8 bytes.  Extra data grew over time: what an entry is too short to have is
 * taken from elsewhere, what it has beyond our knowledge is kept and written back.
 *
 * The bytes are untrusted.  The three lengths are bounded by their fields and by
 * MAX_SNAPSHOT_EXTRA_BYTES, so their sum cannot overflow; it is compared with
 * what is there before anything is taken.
 *
 * Source: format section "Snapshots".
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>

#include "disk/error.h"
#include "disk/snapshot-table.h"

/* As they lie in the file, big-endian. */
struct raw_snapshot {
        uint64_t l1_offset;
        uint32_t l1_entries;
        uint16_t id_bytes;
        uint16_t name_bytes;
        uint32_t date_sec;
        uint32_t date_nsec;
        uint64_t vm_clock_nsec;
        uint32_t vm_state_bytes;        /* 0 if it does not fit */
        uint32_t extra_bytes;
};

struct raw_extra {
        uint64_t vm_state_bytes;
        uint64_t disk_bytes;
        uint64_t icount;
};

static_assert(offsetof(struct raw_snapshot, id_bytes) == 12, "snapshot layout");
static_assert(offsetof(struct raw_snapshot, date_sec) == 16, "snapshot layout");
static_assert(offsetof(struct raw_snapshot, vm_clock_nsec) == 24, "snapshot layout");
static_assert(offsetof(struct raw_snapshot, extra_bytes) == 36, "snapshot layout");
static_assert(sizeof(struct raw_snapshot) == SNAPSHOT_FIXED_BYTES, "snapshot layout");
static_assert(offsetof(struct raw_extra, icount) == 16, "snapshot extra layout");
static_assert(sizeof(struct raw_extra) == SNAPSHOT_EXTRA_BYTES, "snapshot extra layout");

#define NO_ICOUNT UINT64_MAX

/* Does extra data of so many bytes have the member? */
#define EXTRA_HAS(extra_bytes, member) \
        ((extra_bytes) >= offsetof(struct raw_extra, member) + sizeof(uint64_t))

void snapshot_clear(struct snapshot *s)
{
        g_free(s->id);
        g_free(s->name);
        g_free(s->unknown_extra);
        *s = (struct snapshot){ 0 };
}

static char *copy_string(const void *bytes, size_t length_bytes)
{
        char *copy = g_try_malloc(length_bytes + 1);

        if (copy) {
                memcpy(copy, bytes, length_bytes);
                copy[length_bytes] = '\0';
        }
        return copy;
}

static uint32_t unknown_extra_bytes(uint32_t extra_bytes)
{
        return extra_bytes > SNAPSHOT_EXTRA_BYTES ? extra_bytes - SNAPSHOT_EXTRA_BYTES : 0;
}

/* Gives s its own strings and unknown extra data.  On failure s is cleared. */
static int take_variable(struct snapshot *s, const void *id, size_t id_bytes, const void *name,
                         size_t name_bytes, const void *unknown_extra)
{
        uint32_t unknown_bytes = unknown_extra_bytes(s->extra_bytes);

        s->id = copy_string(id, id_bytes);
        s->name = copy_string(name, name_bytes);
        s->unknown_extra = NULL;
        if (unknown_bytes) {
                s->unknown_extra = g_try_malloc(unknown_bytes);
                if (s->unknown_extra)
                        memcpy(s->unknown_extra, unknown_extra, unknown_bytes);
        }
        if (s->id && s->name && (s->unknown_extra || !unknown_bytes))
                return 0;
        snapshot_clear(s);
        return -ENOMEM;
}

int snapshot_copy(struct snapshot *ret, const struct snapshot *from)
{
        struct snapshot copy = *from;
        int err;

        err = take_variable(&copy, from->id, strlen(from->id), from->name, strlen(from->name),
                            from->unknown_extra);
        if (!err)
                *ret = copy;
        return err;
}

/* ---- decoding ---- */

static void take_extra(struct snapshot *s, const uint8_t *extra, uint64_t current_disk_bytes)
{
        struct raw_extra raw = { 0 };

        memcpy(&raw, extra, MIN(s->extra_bytes, sizeof(raw)));
        if (EXTRA_HAS(s->extra_bytes, vm_state_bytes))
                s->vm_state_bytes = be64_load(&raw.vm_state_bytes);
        s->disk_bytes = current_disk_bytes;
        if (EXTRA_HAS(s->extra_bytes, disk_bytes))
                s->disk_bytes = be64_load(&raw.disk_bytes);
        s->icount = NO_ICOUNT;
        if (EXTRA_HAS(s->extra_bytes, icount))
                s->icount = be64_load(&raw.icount);
}

static int take_entry(struct snapshot *ret, const struct raw_snapshot *raw, const uint8_t *bytes,
                      uint64_t current_disk_bytes)
{
        struct snapshot s = {
                .l1_offset = be64_load(&raw->l1_offset),
                .l1_entries = be32_load(&raw->l1_entries),
                .date_sec = be32_load(&raw->date_sec),
                .date_nsec = be32_load(&raw->date_nsec),
                .vm_clock_nsec = be64_load(&raw->vm_clock_nsec),
                .vm_state_bytes = be32_load(&raw->vm_state_bytes),
                .extra_bytes = be32_load(&raw->extra_bytes),
        };
        const uint8_t *extra = bytes + SNAPSHOT_FIXED_BYTES;
        const uint8_t *id = extra + s.extra_bytes;
        const uint8_t *name = id + be16_load(&raw->id_bytes);
        int err;

        take_extra(&s, extra, current_disk_bytes);
        err = take_variable(&s, id, be16_load(&raw->id_bytes), name, be16_load(&raw->name_bytes),
                            extra + MIN(s.extra_bytes, SNAPSHOT_EXTRA_BYTES));
        if (!err)
                *ret = s;
        return err;
}

int snapshot_decode(struct snapshot *ret, const uint8_t *bytes, size_t available,
                    unsigned version, uint64_t current_disk_bytes, unsigned index,
                    size_t *ret_used, struct hvb_error *err)
{
        struct raw_snapshot raw;
        uint32_t extra_bytes;
        size_t entry_bytes;

        assert(version == 2 || version == 3);
        if (available < sizeof(raw))
                return -EAGAIN;
        memcpy(&raw, bytes, sizeof(raw));

        extra_bytes = be32_load(&raw.extra_bytes);
        if (extra_bytes > MAX_SNAPSHOT_EXTRA_BYTES)
                return error_set(err, -EFBIG, "Too much extra metadata in snapshot table entry "
                                 "%u: %u bytes, limit %u", index, extra_bytes,
                                 MAX_SNAPSHOT_EXTRA_BYTES);
        entry_bytes = sizeof(raw) + extra_bytes + be16_load(&raw.id_bytes) +
                      be16_load(&raw.name_bytes);
        if (available < entry_bytes)
                return -EAGAIN;

        if (take_entry(ret, &raw, bytes, current_disk_bytes) < 0)
                return error_set(err, -ENOMEM, "No memory for snapshot table entry %u of %zu "
                                 "bytes", index, entry_bytes);
        *ret_used = round_up(entry_bytes, 8);
        return 0;
}

/* ---- encoding ---- */

static uint32_t encoded_extra_bytes(const struct snapshot *s)
{
        return MAX(s->extra_bytes, SNAPSHOT_EXTRA_BYTES);
}

size_t snapshot_encoded_bytes(const struct snapshot *s)
{
        return round_up(SNAPSHOT_FIXED_BYTES + encoded_extra_bytes(s) + strlen(s->id) +
                        strlen(s->name), 8);
}

static uint8_t *put(uint8_t *p, const void *data, size_t length_bytes)
{
        if (length_bytes)
                memcpy(p, data, length_bytes);
        return p + length_bytes;
}

void snapshot_encode(const struct snapshot *s, uint8_t *bytes)
{
        size_t id_bytes = strlen(s->id);
        size_t name_bytes = strlen(s->name);
        struct raw_snapshot raw;
        struct raw_extra extra;
        uint8_t *p = bytes;

        assert(id_bytes <= UINT16_MAX && name_bytes <= UINT16_MAX);
        assert(s->extra_bytes <= MAX_SNAPSHOT_EXTRA_BYTES);

        be64_store(&raw.l1_offset, s->l1_offset);
        be32_store(&raw.l1_entries, s->l1_entries);
        be16_store(&raw.id_bytes, (uint16_t)id_bytes);
        be16_store(&raw.name_bytes, (uint16_t)name_bytes);
        be32_store(&raw.date_sec, s->date_sec);
        be32_store(&raw.date_nsec, s->date_nsec);
        be64_store(&raw.vm_clock_nsec, s->vm_clock_nsec);
        be32_store(&raw.vm_state_bytes,
                   s->vm_state_bytes <= UINT32_MAX ? (uint32_t)s->vm_state_bytes : 0);
        be32_store(&raw.extra_bytes, encoded_extra_bytes(s));
        be64_store(&extra.vm_state_bytes, s->vm_state_bytes);
        be64_store(&extra.disk_bytes, s->disk_bytes);
        be64_store(&extra.icount, s->icount);

        p = put(p, &raw, sizeof(raw));
        p = put(p, &extra, sizeof(extra));
        p = put(p, s->unknown_extra, unknown_extra_bytes(s->extra_bytes));
        p = put(p, s->id, id_bytes);
        p = put(p, s->name, name_bytes);
        memset(p, 0, snapshot_encoded_bytes(s) - (size_t)(p - bytes));
}

/* ---- telling the host ---- */

/* Cuts in front of a UTF-8 character that would not fit whole. */
static void cut_string(char *to, size_t to_bytes, const char *from)
{
        size_t length_bytes = strlen(from);
        size_t back = 0;

        if (length_bytes >= to_bytes) {
                length_bytes = to_bytes - 1;
                while (back < 3 && (from[length_bytes - back] & 0xc0) == 0x80)
                        back++;
                if ((from[length_bytes - back] & 0xc0) != 0x80)
                        length_bytes -= back;
        }
        memcpy(to, from, length_bytes);
        memset(to + length_bytes, 0, to_bytes - length_bytes);
}

void snapshot_describe(const struct snapshot *s, struct hvb_snapshot_info *info)
{
        struct hvb_snapshot_info whole = {
                .struct_bytes = info->struct_bytes,
                .date_sec = s->date_sec,
                .date_nsec = s->date_nsec,
                .vm_state_bytes = s->vm_state_bytes,
                .vm_clock_nsec = s->vm_clock_nsec,
                .icount = s->icount,
                .disk_bytes = s->disk_bytes,
        };

        cut_string(whole.id_str, sizeof(whole.id_str), s->id);
        cut_string(whole.name, sizeof(whole.name), s->name);
        memcpy(info, &whole, MIN(info->struct_bytes, sizeof(whole)));
}

/* ---- judging ---- */

static int l1_offset_invalid(const struct snapshot *s, const char *why, uint64_t limit,
                             struct hvb_error *err)
{
        return error_set(err, -EINVAL, "Snapshot L1 table offset invalid: 0x%" PRIx64 " of "
                         "snapshot '%.128s' %s %" PRIu64, s->l1_offset, s->name, why, limit);
}

int snapshot_validate_l1(const struct snapshot *s, const struct geometry *g,
                         uint64_t file_bytes, struct hvb_error *err)
{
        uint64_t end_offset;

        if (s->l1_entries > MAX_L1_BYTES / 8)
                return error_set(err, -EFBIG, "Snapshot L1 table too large: %u entries of snapshot "
                                 "'%.128s', limit %u", s->l1_entries, s->name, MAX_L1_BYTES / 8);
        if (s->l1_offset % g->cluster_bytes)
                return l1_offset_invalid(s, "is not a multiple of the cluster size",
                                         g->cluster_bytes, err);
        if (s->l1_offset >= MAX_HOST_OFFSET)
                return l1_offset_invalid(s, "is beyond the limit", MAX_HOST_OFFSET, err);
        if (s->l1_entries == 0)
                return 0;
        if (s->l1_offset < g->cluster_bytes)
                return l1_offset_invalid(s, "lies in the header cluster, whose end is",
                                         g->cluster_bytes, err);
        end_offset = s->l1_offset + s->l1_entries * UINT64_C(8);
        if (end_offset > file_bytes)
                return error_set(err, -EINVAL, "Snapshot L1 table offset invalid: [0x%" PRIx64
                                 ", 0x%" PRIx64 ") of snapshot '%.128s' lies beyond the end of "
                                 "the file (%" PRIu64 " bytes)", s->l1_offset, end_offset,
                                 s->name, file_bytes);
        return 0;
}
