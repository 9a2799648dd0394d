/*
 * hv-img.h - what the files of hv-img share.
 *
 *   hv-img.c           main, the table of commands, messages, the command line
 *   hv-img-open.c      opening images as qemu-img does; block status
 *   hv-img-sandbox.c   giving up what a command does not need, before it opens images
 *   hv-img-options.c   "-o key=value,...": options of a new image
 *   hv-img-json.c      JSON laid out as qemu-img lays it out
 *   hv-img-progress.c  "(12.34/100%)"
 *   hv-img-copy.c      convert's pipeline of reads and writes
 *   hv-img-NAME.c      one command each
 *
 * A command returns the exit status; it has then said why on stderr.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_IMG_H
#define TOOLS_HV_IMG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/drive.h"
#include "host/size.h"

/* ---- Commands and their command line --------------------------------------------- */

struct img_command {
        const char *name;
        int (*run)(const struct img_command *command, int argc, char **argv);
        const char *arguments;          /* "[OPTION...] FILENAME", for the help */
        const char *summary;
        const char *notes;              /* at the end of the help, or NULL */
};

int img_create(const struct img_command *command, int argc, char **argv);
int img_info(const struct img_command *command, int argc, char **argv);
int img_check(const struct img_command *command, int argc, char **argv);
int img_snapshot(const struct img_command *command, int argc, char **argv);
int img_map(const struct img_command *command, int argc, char **argv);
int img_compare(const struct img_command *command, int argc, char **argv);
int img_convert(const struct img_command *command, int argc, char **argv);
int img_resize(const struct img_command *command, int argc, char **argv);

/*
 * Reads options into the places that entries name and the rest of the line into
 * *ret_names.  "--help" prints the help and exits.  Returns 0, or the exit status
 * when the line is wrong, having said so.
 */
int img_parse(const struct img_command *command, const GOptionEntry *entries, int argc,
              char **argv, char ***ret_names);

/* "hv-img: ..." and a newline on stderr. */
void img_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with a pointer to the command's help.  Returns 1. */
int img_usage_error(const struct img_command *command, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* "human" or "json" (NULL: human) into *ret_json.  0, or 1 having complained. */
int img_parse_output(const struct img_command *command, const char *output, bool *ret_json);

/* ---- Opening ----------------------------------------------------------------------- */

struct img_open {
        const char *format;             /* NULL: probe */
        uint32_t flags;                 /* HVB_OPEN_* */
        struct drive_cache cache;
        bool is_named_by_image;         /* not by the operator: img_policy() applies */
};

/*
 * What a command will open, of the names on its command line, said before img_contain().  An
 * image brings the directory that it lies in, for its backing files.
 */
void img_will_read(const char *path);
void img_will_write(const char *path);
/* Enters the sandbox, unless --no-sandbox was given.  0, or 1 having complained. */
int img_contain(void);
/* All is open: gives up opening, too.  The same results. */
int img_seal(void);
/* Options of all commands: --no-sandbox, --allow-dir. */
extern const GOptionEntry img_sandbox_entries[];

/* Which files images may name: those in the sandbox, or any. */
const struct policy *img_policy(void);
const struct drive_watch *img_watch(void);

/* Opens, or says why not.  0 or -errno. */
int img_open(const char *path, const struct img_open *how, struct drive **ret_drive);
/* Closes, or says what went wrong.  0 or -errno. */
int img_close(struct drive *drive);

/*
 * As drive_block_status, and looks for holes in the file below: preallocated
 * clusters that nobody wrote are DATA and ZERO both.
 */
int img_block_status(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                     struct hvb_block_status *ret_status);

/* ---- Snapshots ---------------------------------------------------------------------- */

/* "Snapshot list:" and the table; nothing when count is 0. */
void img_print_snapshots(const struct hvb_snapshot_info *infos, int count);
/* The one with that id, else that name; NULL: none.  by_id: look at ids as well. */
const struct hvb_snapshot_info *img_find_snapshot(const struct hvb_snapshot_info *infos,
                                                  int count, const char *text, bool by_id);

/* ---- New images ---------------------------------------------------------------------- */

/* Options of an image to be made.  Strings are g_malloc'ed or NULL. */
struct img_new {
        char *format;                   /* "qcow2", "raw" */
        uint64_t size_bytes;            /* UINT64_MAX: not given */
        uint64_t cluster_bytes;
        uint64_t refcount_bits;
        char *compat;                   /* as written; NULL: not given */
        char *compression;
        char *preallocation;
        char *backing_name;
        char *backing_format;
        bool lazy_refcounts;
};

void img_new_init(struct img_new *image, const char *format);
void img_new_clear(struct img_new *image);
/* Takes "key=value,key=value"; a comma in a value is written twice.  0 or -errno. */
int img_new_parse(struct img_new *image, const char *text, struct hvb_error *err);
bool img_options_want_help(char *const *texts);
void img_print_options(const char *format);
/* Judges the options together and fills args.  0 or -errno. */
int img_new_args(const struct img_new *image, struct hvb_create_args *args,
                 struct hvb_error *err);
/* "off", "metadata", "falloc", "full"; false: no such mode. */
bool img_parse_preallocation(const char *text, enum hvb_preallocation *ret_mode);
/* The "Formatting 'x', fmt=..." line. */
void img_new_print(const struct img_new *image, const char *path);

/* ---- Progress -------------------------------------------------------------------------- */

void progress_begin(bool wanted);
void progress_update(uint64_t done, uint64_t total);
void progress_end(void);

/* ---- JSON ------------------------------------------------------------------------------- */

/* Writes to stdout as it goes.  key: NULL within an array and for the outermost. */
struct json {
        unsigned depth;
        bool has_items;                 /* something stands at this depth already */
};

void json_object_begin(struct json *json, const char *key);
void json_object_end(struct json *json);
void json_array_begin(struct json *json, const char *key);
void json_array_end(struct json *json);
void json_string(struct json *json, const char *key, const char *value);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_bool(struct json *json, const char *key, bool value);

#endif
