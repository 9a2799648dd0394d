/*
 * machine-bed.h - images for a fake machine, and what tests say about it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_MACHINE_BED_H
#define TESTS_MACHINE_BED_H

#include "snapshot/fake-machine.h"
#include "snapshot/vm-snapshot.h"

#define BED_RAM_BYTES (UINT64_C(8) << 20)

struct bed {
        char *directory;
        char *paths[FAKE_MAX_DISKS];
        unsigned disk_count;
        uint64_t ram_bytes;
        struct machine *m;              /* NULL: closed */
        struct hvb_error err;           /* of the last call below */
        struct vm_job job;
        bool stopped;                   /* how to save and load: as in vm_snapshot_options */
        bool eager;
};

/* Makes images and a machine that is paused after some steps. */
void bed_open(struct bed *b, unsigned disk_count, uint64_t ram_bytes);
/* With images of these clusters; 0: as usual. */
void bed_open_with(struct bed *b, unsigned disk_count, uint64_t ram_bytes, uint64_t cluster_bytes);
void bed_close(struct bed *b);          /* removes the images, too */
/* The process as good as ends and begins: another machine over the same images. */
void bed_machine_close(struct bed *b);
void bed_machine_open(struct bed *b);

int bed_save(struct bed *b, const char *tag, bool replace);
int bed_load(struct bed *b, const char *tag);
int bed_del(struct bed *b, const char *tag);
/* What a load left to be read is read; -EIO: it cannot be. */
int bed_wait_loaded(struct bed *b);

/* "a" complete and loadable, "a?" complete without VM state, "a@virtio0" partial; sorted, with
 * spaces between.  g_free. */
char *bed_list(struct bed *b);
#define bed_expect_list(b, expected) \
        do { \
                g_autofree char *list_ = bed_list(b); \
                g_assert_cmpstr(list_, ==, expected); \
        } while (0)

/* check of each image: nothing corrupt; leaks only if they are allowed. */
void bed_expect_clean(struct bed *b);
/* Bytes that the images' clusters take. */
uint64_t bed_allocated_clusters(struct bed *b);

#endif
