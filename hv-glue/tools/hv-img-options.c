/*
 * hv-img-options.c - "-o key=value,...": options of a new image.
 *
 * What a word means is judged here; whether numbers fit each other and the format
 * is the driver's to say.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "hv-img.h"

enum option_kind { KIND_SIZE, KIND_NUMBER, KIND_STRING, KIND_BOOL };
enum { FOR_QCOW2 = 1 << 0, FOR_RAW = 1 << 1, SECTOR_BYTES = 512 };

static const struct option {
        const char *key;
        enum option_kind kind;
        unsigned formats;
        size_t offset;                  /* in struct img_new */
        const char *help;
} options[] = {
#define AT(member) offsetof(struct img_new, member)
        { "backing_file", KIND_STRING, FOR_QCOW2, AT(backing_name), "File name of a base image" },
        { "backing_fmt", KIND_STRING, FOR_QCOW2, AT(backing_format),
          "Image format of the base image" },
        { "cluster_size", KIND_SIZE, FOR_QCOW2, AT(cluster_bytes), "qcow2 cluster size" },
        { "compat", KIND_STRING, FOR_QCOW2, AT(compat),
          "Compatibility level (v2 [0.10] or v3 [1.1])" },
        { "compression_type", KIND_STRING, FOR_QCOW2, AT(compression),
          "Compression method used for image cluster compression" },
        { "lazy_refcounts", KIND_BOOL, FOR_QCOW2, AT(lazy_refcounts),
          "Postpone refcount updates" },
        { "preallocation", KIND_STRING, FOR_QCOW2 | FOR_RAW, AT(preallocation),
          "Preallocation mode (allowed values: off, metadata, falloc, full)" },
        { "refcount_bits", KIND_NUMBER, FOR_QCOW2, AT(refcount_bits),
          "Width of a reference count entry in bits" },
        { "size", KIND_SIZE, FOR_QCOW2 | FOR_RAW, AT(size_bytes), "Virtual disk size" },
#undef AT
};

static unsigned format_bit(const char *format)
{
        return strcmp(format, "qcow2") == 0 ? FOR_QCOW2 : FOR_RAW;
}

void img_new_init(struct img_new *image, const char *format)
{
        *image = (struct img_new) {
                .format = g_strdup(format),
                .size_bytes = UINT64_MAX,
                .cluster_bytes = 65536,
                .refcount_bits = 16,
        };
}

void img_new_clear(struct img_new *image)
{
        g_free(image->format);
        g_free(image->compat);
        g_free(image->compression);
        g_free(image->preallocation);
        g_free(image->backing_name);
        g_free(image->backing_format);
}

bool img_options_want_help(char *const *texts)
{
        for (; texts != NULL && *texts != NULL; texts++)
                if (strcmp(*texts, "help") == 0 || strcmp(*texts, "?") == 0
                    || strcmp(*texts, "list") == 0)
                        return true;
        return false;
}

void img_print_options(const char *format)
{
        static const char *const kinds[] = { "<size>", "<num>", "<str>", "<bool (on/off)>" };

        printf("Supported %s options:\n", format);
        for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
                g_autofree char *left = g_strdup_printf("%s=%s", options[i].key,
                                                        kinds[options[i].kind]);

                if (options[i].formats & format_bit(format))
                        printf("  %-22s - %s\n", left, options[i].help);
        }
}

static const struct option *find_option(const struct img_new *image, const char *key)
{
        for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
                if (strcmp(options[i].key, key) == 0
                    && options[i].formats & format_bit(image->format))
                        return &options[i];
        return NULL;
}

static int set_option(struct img_new *image, const char *key, const char *value,
                      struct hvb_error *err)
{
        const struct option *option = find_option(image, key);
        void *place;

        /* Named, so that scripts which spell out the default go on working. */
        if (strcmp(key, "extended_l2") == 0 && strcmp(value, "off") == 0)
                return 0;
        if (option == NULL)
                return error_set(err, -EINVAL, "Invalid parameter '%s'", key);
        place = (char *) image + option->offset;
        switch (option->kind) {
        case KIND_STRING:
                g_free(*(char **) place);
                *(char **) place = g_strdup(value);
                return 0;
        case KIND_BOOL:
                if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
                        return error_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'",
                                         key);
                *(bool *) place = strcmp(value, "on") == 0;
                return 0;
        case KIND_NUMBER:
                if (!g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX, place, NULL))
                        return error_set(err, -EINVAL, "Parameter '%s' expects a number", key);
                return 0;
        case KIND_SIZE:
                if (size_parse(value, place) == 0)
                        return 0;
                return error_set(err, -EINVAL, "Parameter '%s' expects a non-negative number "
                                 "below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, "
                                 "mega-, giga-, tera-, peta-\nand exabytes, respectively.", key);
        }
        g_assert_not_reached();
}

/* Cuts the next item off *text: up to a single comma, a double one being one of it. */
static char *next_item(const char **text)
{
        GString *item = g_string_new(NULL);
        const char *p = *text;

        for (; *p != '\0'; p++) {
                if (*p == ',' && p[1] != ',')
                        break;
                if (*p == ',')
                        p++;
                g_string_append_c(item, *p);
        }
        *text = *p == ',' ? p + 1 : p;
        return g_string_free(item, FALSE);
}

int img_new_parse(struct img_new *image, const char *text, struct hvb_error *err)
{
        while (*text != '\0') {
                g_autofree char *item = next_item(&text);
                char *equals = strchr(item, '=');
                int ret;

                if (equals != NULL)
                        *equals = '\0';
                ret = set_option(image, item, equals == NULL ? "on" : equals + 1, err);
                if (ret < 0)
                        return ret;
        }
        return 0;
}

bool img_parse_preallocation(const char *text, enum hvb_preallocation *ret_mode)
{
        static const char *const modes[] = {
                [HVB_PREALLOC_OFF] = "off", [HVB_PREALLOC_METADATA] = "metadata",
                [HVB_PREALLOC_FALLOC] = "falloc", [HVB_PREALLOC_FULL] = "full",
        };

        for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
                if (strcmp(text, modes[i]) == 0) {
                        *ret_mode = i;
                        return true;
                }
        }
        return false;
}

static int refuse_value(const char *key, const char *value, struct hvb_error *err)
{
        return error_set(err, -EINVAL, "Parameter '%s' does not accept value '%s'", key, value);
}

static int judge_words(const struct img_new *image, struct hvb_create_args *args,
                       struct hvb_error *err)
{
        const char *compat = image->compat == NULL ? "1.1" : image->compat;
        const char *compression = image->compression == NULL ? "zlib" : image->compression;
        enum hvb_preallocation mode = HVB_PREALLOC_OFF;

        if (strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0)
                args->version = 2;
        else if (strcmp(compat, "1.1") == 0 || strcmp(compat, "v3") == 0)
                args->version = 3;
        else
                return refuse_value("version", compat, err);
        if (strcmp(compression, "zlib") == 0)
                args->compression = HVB_COMPRESSION_ZLIB;
        else if (strcmp(compression, "zstd") == 0)
                args->compression = HVB_COMPRESSION_ZSTD;
        else
                return refuse_value("compression-type", compression, err);
        if (image->preallocation != NULL && !img_parse_preallocation(image->preallocation, &mode))
                return refuse_value("preallocation", image->preallocation, err);
        args->preallocation = mode;
        return 0;
}

int img_new_args(const struct img_new *image, struct hvb_create_args *args,
                 struct hvb_error *err)
{
        uint64_t size = image->size_bytes;

        if (size > INT64_MAX - SECTOR_BYTES)
                return error_set(err, -EFBIG, "Image size must be less than 8 EiB!");
        if (image->cluster_bytes < 512 || image->cluster_bytes > 2 << 20)
                return error_set(err, -EINVAL,
                                 "Cluster size must be a power of two between 512 and 2048k");
        if (image->refcount_bits < 1 || image->refcount_bits > 64)
                return error_set(err, -EINVAL, "Refcount width must be a power of two and may not "
                                 "exceed 64 bits");
        if (image->backing_name == NULL && image->backing_format != NULL)
                return error_set(err, -EINVAL,
                                 "Backing format cannot be used without backing file");
        *args = (struct hvb_create_args) {
                .struct_bytes = sizeof(*args),
                .size_bytes = (size + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES,
                .cluster_bytes = image->cluster_bytes,
                .refcount_bits = image->refcount_bits,
                .lazy_refcounts = image->lazy_refcounts,
                .backing_name = image->backing_name,
                .backing_format = image->backing_format,
        };
        return judge_words(image, args, err);
}

/* A string value; commas are written twice, as they would have to be read. */
static void print_string(const char *key, const char *value)
{
        if (value == NULL)
                return;
        printf(" %s=", key);
        for (; *value != '\0'; value++)
                fputs(*value == ',' ? ",," : (char[]) { *value, '\0' }, stdout);
}

void img_new_print(const struct img_new *image, const char *path)
{
        bool is_raw = strcmp(image->format, "raw") == 0;

        printf("Formatting '%s', fmt=%s", path, image->format);
        if (!is_raw) {
                printf(" cluster_size=%" PRIu64 " extended_l2=off", image->cluster_bytes);
                print_string("preallocation", image->preallocation);
                print_string("compression_type",
                             image->compression == NULL ? "zlib" : image->compression);
        }
        printf(" size=%" PRIu64, image->size_bytes);
        if (is_raw) {
                print_string("preallocation", image->preallocation);
        } else {
                print_string("compat", image->compat);
                print_string("backing_file", image->backing_name);
                print_string("backing_fmt", image->backing_format);
                printf(" lazy_refcounts=%s refcount_bits=%" PRIu64,
                       image->lazy_refcounts ? "on" : "off", image->refcount_bits);
        }
        putchar('\n');
        fflush(stdout);
}
