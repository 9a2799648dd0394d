/*
 * loader.c - finding and loading block driver plugins.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/loader.h"

#include <errno.h>
#include <glib.h>
#include <gmodule.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "host/raw.h"

/* The build says where plugins are installed; without it only the other places count. */
#ifndef HV_BLOCK_PLUGINDIR
#define HV_BLOCK_PLUGINDIR "/usr/local/lib/hv-block"
#endif
#ifndef HV_BLOCK_LIBDIR
#define HV_BLOCK_LIBDIR "lib"
#endif

/* A table of version 1 reaches at least to the end of this member. */
enum {
        DRIVER_BYTES_MIN = offsetof(struct hvb_driver, dump_operations) + sizeof(void (*)(void)),
};

/* Members that every driver must have, however little of their work it supports. */
static const struct {
        const char *name;
        size_t offset;
} required_members[] = {
#define MEMBER(m) { #m, offsetof(struct hvb_driver, m) }
        MEMBER(format_name), MEMBER(version_text), MEMBER(probe), MEMBER(open), MEMBER(create),
        MEMBER(close), MEMBER(release), MEMBER(queue), MEMBER(queue_fd), MEMBER(poll),
        MEMBER(preadv), MEMBER(pwritev), MEMBER(pwrite_zeroes), MEMBER(pdiscard), MEMBER(flush),
        MEMBER(block_status), MEMBER(drain), MEMBER(get_info), MEMBER(truncate),
        MEMBER(check), MEMBER(snapshot_create), MEMBER(snapshot_goto), MEMBER(snapshot_delete),
        MEMBER(snapshot_list), MEMBER(snapshot_load_tmp), MEMBER(save_vmstate),
        MEMBER(load_vmstate),
#undef MEMBER
};

int loader_check_driver(const struct hvb_driver *driver, const char *format,
                        struct hvb_error *err)
{
        if (driver->abi_version != HVB_ABI_VERSION)
                return error_set(err, -EPROTO, "driver '%s' has ABI version %u, this host %u",
                                 format, driver->abi_version, HVB_ABI_VERSION);
        if (driver->struct_bytes < DRIVER_BYTES_MIN)
                return error_set(err, -EPROTO,
                                 "driver '%s' has a table of %u bytes, at least %u are needed",
                                 format, driver->struct_bytes, (unsigned) DRIVER_BYTES_MIN);

        for (size_t i = 0; i < G_N_ELEMENTS(required_members); i++) {
                void *member;

                memcpy(&member, (const char *) driver + required_members[i].offset,
                       sizeof(member));
                if (member == NULL)
                        return error_set(err, -EPROTO, "driver '%s' has no member %s", format,
                                         required_members[i].name);
        }
        if (strcmp(driver->format_name, format) != 0)
                return error_set(err, -EPROTO, "driver for '%s' calls itself '%.32s'", format,
                                 driver->format_name);
        if (driver->request_bytes < sizeof(struct hvb_request))
                return error_set(err, -EPROTO,
                                 "driver '%s' asks for requests of %zu bytes, at least %zu "
                                 "are needed", format, driver->request_bytes,
                                 sizeof(struct hvb_request));
        return 0;
}

/* A format name becomes part of a path: letters, digits, '-' and '_' only. */
static bool is_format_name(const char *format)
{
        size_t length = strspn(format, "abcdefghijklmnopqrstuvwxyz0123456789-_");

        return length > 0 && length < 32 && format[length] == '\0';
}

/* Where plugins may be, in order.  NULL-terminated. */
static char **search_path(void)
{
        g_autoptr(GPtrArray) path = g_ptr_array_new();
        g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
        const char *variable = secure_getenv("HV_BLOCK_PATH");

        if (variable != NULL) {
                g_auto(GStrv) parts = g_strsplit(variable, ":", -1);

                for (char **part = parts; *part != NULL; part++)
                        if (**part != '\0')
                                g_ptr_array_add(path, g_strdup(*part));
        }
        if (exe != NULL) {
                g_autofree char *directory = g_path_get_dirname(exe);

                g_ptr_array_add(path, g_build_filename(directory, "../driver", NULL));
                g_ptr_array_add(path, g_build_filename(directory, "..", HV_BLOCK_LIBDIR,
                                                       "hv-block", NULL));
        }
        g_ptr_array_add(path, g_strdup(HV_BLOCK_PLUGINDIR));
        g_ptr_array_add(path, NULL);
        return (char **) g_ptr_array_free(g_steal_pointer(&path), FALSE);
}

/* The first plugin file of that name, or NULL with all places tried in err. */
static char *find_plugin(const char *format, struct hvb_error *err)
{
        g_auto(GStrv) directories = search_path();
        g_autofree char *name = g_strdup_printf("block-%s.so", format);
        g_autofree char *tried = NULL;

        for (char **directory = directories; *directory != NULL; directory++) {
                g_autofree char *file = g_build_filename(*directory, name, NULL);

                if (g_file_test(file, G_FILE_TEST_IS_REGULAR))
                        return g_steal_pointer(&file);
        }
        tried = g_strjoinv(", ", directories);
        error_set(err, -ENOENT, "no %s in %s", name, tried);
        return NULL;
}

static int load_file(const char *file, const char *format, const struct hvb_driver **ret_driver,
                     struct hvb_error *err)
{
        GModule *module = g_module_open(file, G_MODULE_BIND_LOCAL);
        const struct hvb_driver *driver;
        hvb_driver_entry_fn entry;
        gpointer symbol;
        int ret;

        if (module == NULL)
                return error_set(err, -ENOEXEC, "%s", g_module_error());
        if (!g_module_symbol(module, HVB_DRIVER_ENTRY, &symbol)) {
                ret = error_set(err, -ENOEXEC, "%s is no block driver: it does not export "
                                HVB_DRIVER_ENTRY, file);
                goto close_module;
        }
        memcpy(&entry, &symbol, sizeof(entry));
        driver = entry(HVB_ABI_VERSION);
        if (driver == NULL) {
                ret = error_set(err, -EPROTO, "%s does not serve a host of ABI version %u", file,
                                HVB_ABI_VERSION);
                goto close_module;
        }
        ret = loader_check_driver(driver, format, err);
        if (ret < 0) {
                error_prepend(err, "%s: ", file);
                goto close_module;
        }
        g_module_make_resident(module);         /* the table is used for ever */
        *ret_driver = driver;
        return 0;

close_module:
        g_module_close(module);
        return ret;
}

int loader_load(const char *format, const struct hvb_driver **ret_driver, struct hvb_error *err)
{
        static GMutex lock;
        static GHashTable *loaded;              /* under lock: format -> driver */
        g_autoptr(GMutexLocker) locker = NULL;
        g_autofree char *file = NULL;
        const struct hvb_driver *driver;
        int ret;

        if (strcmp(format, "raw") == 0) {
                *ret_driver = raw_driver();
                return 0;
        }
        if (!is_format_name(format))
                return error_set(err, -EINVAL, "no format is called '%.32s'", format);

        locker = g_mutex_locker_new(&lock);
        if (loaded == NULL)
                loaded = g_hash_table_new(g_str_hash, g_str_equal);
        driver = g_hash_table_lookup(loaded, format);
        if (driver == NULL) {
                file = find_plugin(format, err);
                if (file == NULL)
                        return -ENOENT;
                ret = load_file(file, format, &driver, err);
                if (ret < 0)
                        return ret;
                g_hash_table_insert(loaded, g_strdup(format), (gpointer) driver);
        }
        *ret_driver = driver;
        return 0;
}
