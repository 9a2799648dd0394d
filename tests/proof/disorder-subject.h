/*
 * disorder-subject.h - an image on a simulated disk, entered through the driver's door.
 *
 * The members of the driver's table do what they do for a host, requests without a coroutine
 * and cancels included; only the engine is another.  File 0 of the disk is the image, file 1, if
 * there is one, the raw file that backs it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_DISORDER_SUBJECT_H
#define PROOF_DISORDER_SUBJECT_H

#include "door.h"
#include "lib/simdisk.h"

struct subject {
        const struct hvb_driver *driver;
        struct hvb_host host;
        struct hvb_image *image;        /* NULL: closed */
        struct hvb_queue *queue;
        struct hvb_error err;           /* of the last call here that failed */
        uint64_t l2_cache_bytes;        /* for opening; 0: the driver's choice */
        bool discard_unmap;
};

/* One that is zeroed, of driver->request_bytes; free(3) it. */
struct hvb_request *subject_request_new(void);

/*
 * One call of a member that is not below: begin, pass c->request to the member, end.  c stays
 * where it is until then; other calls may begin and end meanwhile.  The end waits for the
 * request's and returns its result; a request that waits for ever aborts.
 */
struct subject_call {
        struct hvb_request *request;
        bool ended;
};

void subject_call_begin(struct subject *s, struct subject_call *c);
int subject_call_end(struct subject *s, struct subject_call *c);

/* Formats file 0 and leaves the image closed. */
int subject_create(struct subject *s, struct simdisk *disk, const struct hvb_create_args *args);
int subject_open(struct subject *s, struct simdisk *disk, uint32_t flags);
/* Closes and releases; the image is gone in any case. */
int subject_close(struct subject *s);
/* Releases it after a close of one's own. */
void subject_release(struct subject *s);

/* Each begins one request and waits for its end. */
int subject_load_tmp(struct subject *s, const char *name);
int subject_read(struct subject *s, uint64_t offset, void *buffer, size_t length);
int subject_load_vmstate(struct subject *s, uint64_t offset, void *buffer, size_t length);
int subject_check(struct subject *s, struct hvb_check_result *ret_result);
int subject_inactivate(struct subject *s);
int subject_activate(struct subject *s);

#endif
