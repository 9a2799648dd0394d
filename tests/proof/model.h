/*
 * model.h - what an image holds, as somebody remembers who only issued the operations.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_MODEL_H
#define PROOF_MODEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct model_snapshot {
        char *id;
        char *name;
        GBytes *disk;
        GBytes *vm_state;
};

struct model {
        GBytes *disk;
        GPtrArray *snapshots;           /* of struct model_snapshot, in the table's order */
};

struct model *model_new(GBytes *disk);
struct model *model_copy(const struct model *m);
void model_free(struct model *m);

/* The disk with length bytes at offset set to value. */
void model_fill(struct model *m, uint64_t offset, uint64_t length, uint8_t value);
void model_resize(struct model *m, uint64_t disk_bytes);

/* The disk and vm_state (NULL: none) become the last snapshot. */
void model_snapshot_add(struct model *m, const char *id, const char *name, GBytes *vm_state);
struct model_snapshot *model_snapshot_find(const struct model *m, const char *name);
/* It turned out to hold another disk than was there when it was added. */
void model_snapshot_set_disk(struct model *m, const char *name, GBytes *disk);
void model_snapshot_remove(struct model *m, const char *name);
void model_snapshot_goto(struct model *m, const char *name);

#endif
