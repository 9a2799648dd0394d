/*
 * forge.c - see forge.h.  Sections of the format are named; nothing here is the driver's.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/forge.h"

#include <glib.h>
#include <string.h>

void forge_put(struct sim_image *image, uint64_t offset, unsigned width_bytes, uint64_t value)
{
        uint8_t bytes[8];
        unsigned i;

        g_assert_cmpuint(width_bytes, <=, sizeof(bytes));
        for (i = width_bytes; i > 0; i--, value >>= 8)
                bytes[i - 1] = (uint8_t)value;
        sim_image_write(image, offset, bytes, width_bytes);
}

/* Section "General". */
static void put_header(struct sim_image *image)
{
        forge_put(image, 0, 4, 0x514649fb);             /* magic */
        forge_put(image, 4, 4, 3);                      /* version */
        forge_put(image, 20, 4, 12);                    /* cluster bits */
        forge_put(image, 24, 8, FORGE_DISK_BYTES);
        forge_put(image, 36, 4, 1);                     /* L1 entries */
        forge_put(image, 40, 8, FORGE_L1);
        forge_put(image, 48, 8, FORGE_REFTABLE);
        forge_put(image, 56, 4, 1);                     /* its clusters */
        forge_put(image, 60, 4, 1);                     /* snapshots */
        forge_put(image, 64, 8, FORGE_SNAPSHOTS);
        forge_put(image, 96, 4, 4);                     /* refcount order */
        forge_put(image, 100, 4, 104);                  /* header length */
}

/* Section "Host cluster management": what the active disk and the snapshot share counts two. */
static void put_counts(struct sim_image *image)
{
        uint64_t at;

        forge_put(image, FORGE_REFTABLE, 8, FORGE_REFBLOCK);
        for (at = 0; at < FORGE_END; at += FORGE_CLUSTER)
                forge_put(image, FORGE_REFBLOCK + at / FORGE_CLUSTER * 2, 2,
                          at == FORGE_L2 || at == FORGE_DATA_AT ? 2 : 1);
}

/* Section "Snapshots". */
static void put_snapshot(struct sim_image *image)
{
        const uint64_t at = FORGE_SNAPSHOTS;

        forge_put(image, at, 8, FORGE_SNAPSHOT_L1);
        forge_put(image, at + 8, 4, 1);                 /* L1 entries */
        forge_put(image, at + 12, 2, 1);                /* id length */
        forge_put(image, at + 14, 2, 3);                /* name length */
        forge_put(image, at + 36, 4, 24);               /* extra data */
        forge_put(image, at + 48, 8, FORGE_DISK_BYTES);
        forge_put(image, at + 56, 8, UINT64_MAX);       /* icount: none */
        sim_image_write(image, at + 64, "1one", 4);
}

struct sim_image forge_image(void)
{
        struct sim_image image = { .root = NULL };
        uint8_t data[FORGE_CLUSTER];

        memset(data, FORGE_DATA, sizeof(data));
        sim_image_set_length(&image, FORGE_END);
        put_header(&image);
        put_counts(&image);
        put_snapshot(&image);
        forge_put(&image, FORGE_L1, 8, FORGE_L2);
        forge_put(&image, FORGE_SNAPSHOT_L1, 8, FORGE_L2);
        forge_put(&image, FORGE_L2, 8, FORGE_DATA_AT);
        sim_image_write(&image, FORGE_DATA_AT, data, sizeof(data));
        return image;
}
