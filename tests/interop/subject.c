/*
 * subject.c - making, opening and closing the image; see sequence.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "sequence.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <glib.h>

#include "host/loader.h"

#define COMPARE_BYTES (1u << 20)

/* Some extents of data, the rest zeros. */
static void scatter(struct sequence *seq, struct model_disk *disk)
{
        uint64_t cluster = 1ull << seq->plan.cluster_bits;

        for (unsigned i = 0; i < 12; i++) {
                uint64_t offset = rng_below(&seq->rng, disk->size_bytes);
                uint64_t length = rng_between(&seq->rng, 1, 2 * cluster);
                g_autofree uint8_t *bytes = NULL;

                length = MIN(length, disk->size_bytes - offset);
                bytes = g_malloc(length);
                batch_pattern(bytes, offset, length, rng_next(&seq->rng),
                              rng_chance(&seq->rng, 50));
                disk_write(disk, offset, bytes, length);
        }
}

static int make_backing(struct sequence *seq)
{
        const struct plan *plan = &seq->plan;
        struct model_disk *disk = disk_new(plan->backing_bytes);
        g_autofree char *raw = g_build_filename(seq->directory, "back.raw", NULL);
        g_autofree char *options = g_strdup_printf("compat=%s,cluster_size=%u",
                                                   plan->version == 2 ? "0.10" : "1.1",
                                                   1u << plan->backing_cluster_bits);
        struct peer_result result = {};
        uint64_t shared = MIN(plan->backing_bytes, plan->size_bytes);
        g_autofree uint8_t *bytes = g_malloc(shared);
        int ret;

        scatter(seq, disk);
        disk_read(disk, 0, bytes, shared);
        disk_write(seq->model.disk, 0, bytes, shared);
        ret = disk_export(disk, raw);
        disk_free(disk);
        if (ret < 0)
                return sequence_fail(seq, "cannot write %s: %s", raw, g_strerror(-ret));
        if (plan->backing == BACKING_RAW) {
                seq->backing_path = g_strdup(raw);
                return 0;
        }
        seq->backing_path = g_build_filename(seq->directory, "back.qcow2", NULL);
        if (peer(seq->directory, &result, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o",
                 options, raw, seq->backing_path))
                ret = sequence_fail(seq, "convert of the backing file: %s", result.err);
        peer_result_clear(&result);
        return ret;
}

static int create_by_peer(struct sequence *seq)
{
        const struct plan *plan = &seq->plan;
        GPtrArray *args = peer_args_new("qemu-img");
        struct peer_result result = {};
        g_autoptr(GString) options = g_string_new("");
        int ret = 0;

        g_string_printf(options, "compat=%s,cluster_size=%u", plan->version == 2 ? "0.10" : "1.1",
                        1u << plan->cluster_bits);
        if (plan->version == 3)
                g_string_append_printf(options, ",refcount_bits=%u,lazy_refcounts=%s%s",
                                       plan->refcount_bits, plan->lazy_refcounts ? "on" : "off",
                                       plan->zstd ? ",compression_type=zstd" : "");
        if (plan->preallocated)
                g_string_append(options, ",preallocation=metadata");
        peer_args_add(args, "create");
        peer_args_add(args, "-q");
        peer_args_add(args, "-f");
        peer_args_add(args, "qcow2");
        peer_args_add(args, "-o");
        peer_args_add(args, "%s", options->str);
        if (seq->backing_path) {
                g_autofree char *name = g_path_get_basename(seq->backing_path);

                peer_args_add(args, "-b");
                peer_args_add(args, "%s", name);
                peer_args_add(args, "-F");
                peer_args_add(args, "%s", plan->backing == BACKING_RAW ? "raw" : "qcow2");
        }
        peer_args_add(args, "%s", seq->path);
        peer_args_add(args, "%llu", (unsigned long long)plan->size_bytes);
        if (peer_args_run(args, seq->directory, &result))
                ret = sequence_fail(seq, "qemu-img create: %s", result.err);
        peer_result_clear(&result);
        return ret;
}

static int create_by_us(struct sequence *seq)
{
        const struct plan *plan = &seq->plan;
        struct hvb_error err = ERROR_INIT;
        g_autofree char *backing = seq->backing_path ? g_path_get_basename(seq->backing_path)
                                                     : NULL;
        const char *backing_format = plan->backing == BACKING_RAW ? "raw" : "qcow2";
        struct hvb_create_args args = {
                .struct_bytes = sizeof(args),
                .size_bytes = plan->size_bytes,
                .cluster_bytes = 1ull << plan->cluster_bits,
                .refcount_bits = plan->refcount_bits,
                .version = plan->version,
                .lazy_refcounts = plan->lazy_refcounts,
                .preallocation = plan->preallocated ? HVB_PREALLOC_METADATA : HVB_PREALLOC_OFF,
                .compression = plan->zstd ? HVB_COMPRESSION_ZSTD : HVB_COMPRESSION_ZLIB,
                .backing_name = backing,
                .backing_format = backing ? backing_format : NULL,
        };
        struct drive_options options = {
                .format = "qcow2", .flags = HVB_OPEN_RDWR, .policy = seq->policy,
        };
        int ret = drive_create(seq->path, &args, &options, &seq->drive, &err);

        if (ret < 0)
                return sequence_fail(seq, "create: %s", error_text(&err, ret));
        return subject_close(seq);
}

int subject_create(struct sequence *seq)
{
        int ret = 0;

        if (seq->plan.backing != BACKING_NONE)
                ret = make_backing(seq);
        if (ret < 0)
                return ret;
        sequence_log(seq, "create by %s", seq->plan.made_by_peer ? "peer" : "us");
        ret = seq->plan.made_by_peer ? create_by_peer(seq) : create_by_us(seq);
        if (ret < 0)
                return ret;
        return subject_check(seq);
}

static bool option_known(const char *key)
{
        const struct hvb_driver *driver;

        if (loader_load("qcow2", &driver, NULL) < 0 || !driver->open_options)
                return false;
        for (int i = 0; driver->open_options[i]; i++)
                if (g_str_has_prefix(driver->open_options[i], key))
                        return true;
        return false;
}

/* Sometimes a metadata cache of the smallest size, so that it has to evict. */
int subject_open(struct sequence *seq, bool writable)
{
        struct hvb_error err = ERROR_INIT;
        g_autofree char *cache = NULL;
        g_autofree char *engine = NULL;
        const char *options[4] = { NULL };
        unsigned n = 0;
        struct drive_options how = {
                .format = "qcow2", .flags = writable ? HVB_OPEN_RDWR : 0, .policy = seq->policy,
                .options = options,
        };
        int ret;

        if (g_getenv("TEST_ENGINE")) {
                engine = g_strdup_printf("engine=%s", g_getenv("TEST_ENGINE"));
                options[n++] = engine;
        }
        if (rng_chance(&seq->rng, 30) && option_known("l2-cache-size=")) {
                cache = g_strdup_printf("l2-cache-size=%llu", 2ull << seq->plan.cluster_bits);
                options[n++] = cache;
        }
        if (seq->plan.seed % 3 == 0 && option_known("discard="))
                options[n++] = "discard=unmap";
        sequence_log(seq, "open %s %s", writable ? "read-write" : "read-only",
                     cache ? cache : "");
        g_assert(!seq->drive);
        ret = drive_open(seq->path, &how, &seq->drive, &err);
        if (ret < 0) {
                seq->drive = NULL;
                return sequence_fail(seq, "open: %s", error_text(&err, ret));
        }
        if (drive_bytes(seq->drive) != seq->model.disk->size_bytes)
                return sequence_fail(seq, "disk of %llu bytes opens with %llu",
                                     (unsigned long long)seq->model.disk->size_bytes,
                                     (unsigned long long)drive_bytes(seq->drive));
        return 0;
}

int subject_close(struct sequence *seq)
{
        struct hvb_error err = ERROR_INIT;
        struct drive *drive = seq->drive;
        int ret;

        sequence_log(seq, "close");
        control_forget_vm_state(seq);
        seq->drive = NULL;
        ret = drive_close(drive, &err);
        if (ret < 0)
                return sequence_fail(seq, "close: %s", error_text(&err, ret));
        return 0;
}

int subject_compare(struct sequence *seq, const struct model_disk *disk,
                    const struct model_disk *other, const char *what,
                    struct model_disk **ret_got)
{
        g_autofree uint8_t *bytes = g_malloc(COMPARE_BYTES);
        struct model_disk *got = ret_got ? disk_new(disk->size_bytes) : NULL;
        uint64_t bad;

        for (uint64_t at = 0; at < disk->size_bytes; at += COMPARE_BYTES) {
                size_t length = MIN(COMPARE_BYTES, disk->size_bytes - at);
                int ret = drive_pread(seq->drive, at, bytes, length);

                if (ret < 0)
                        ret = sequence_fail(seq, "%s: read of %zu at %llu: %s", what, length,
                                            (unsigned long long)at, g_strerror(-ret));
                else if (!disk_allows(disk, other, at, bytes, length, &bad))
                        ret = sequence_fail(seq, "%s: wrong byte %#x at %#llx", what,
                                            bytes[bad - at], (unsigned long long)bad);
                if (ret < 0) {
                        disk_free(got);
                        return ret;
                }
                if (got)
                        disk_write(got, at, bytes, length);
        }
        if (ret_got)
                *ret_got = got;
        return 0;
}

int subject_check(struct sequence *seq)
{
        struct peer_result result = {};
        int ret = 0;

        g_assert(!seq->drive);
        if (peer(seq->directory, &result, "qemu-img", "check", "-f", "qcow2", seq->path))
                ret = sequence_fail(seq, "qemu-img check exits with %d: %s%s", result.status,
                                    result.out, result.err);
        peer_result_clear(&result);
        return ret;
}
