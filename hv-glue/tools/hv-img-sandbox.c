/*
 * hv-img-sandbox.c - giving up what a command does not need, before it opens images.
 *
 * A command says what it will open, is contained, opens, and is sealed.  What it opens are
 * names of the operator, and what the images name below their directories.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/loader.h"
#include "host/sandbox.h"
#include "hv-img.h"

static struct {
        gboolean is_off;
        char **directories;
} args;

const GOptionEntry img_sandbox_entries[] = {
        { "no-sandbox", 0, 0, G_OPTION_ARG_NONE, &args.is_off,
          "images may name any file, and the process may do anything", NULL },
        { "allow-dir", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &args.directories,
          "backing files may lie in or below this directory, too", "DIRECTORY" },
        { 0 },
};

static struct sandbox_plan *plan;
static struct policy *policy;

static struct sandbox_plan *the_plan(void)
{
        if (plan == NULL)
                plan = sandbox_plan_new();
        return plan;
}

void img_will_read(const char *path)
{
        sandbox_plan_image(the_plan(), path, false);
}

void img_will_write(const char *path)
{
        sandbox_plan_image(the_plan(), path, true);
}

int img_contain(void)
{
        struct hvb_error err = ERROR_INIT;
        const struct hvb_driver *driver;
        int ret;

        for (char **path = args.directories; path != NULL && *path != NULL; path++)
                sandbox_plan_read(the_plan(), *path);
        policy = args.is_off ? policy_new_all() : sandbox_plan_policy(the_plan());
        policy_set_probe(policy, POLICY_PROBE_WARN);
        if (args.is_off)
                return 0;
        loader_load("qcow2", &driver, NULL);    /* if it fails now, opening will say so */
        ret = sandbox_enter(the_plan(), &err);
        if (ret < 0)
                img_error("%s (--no-sandbox goes without)", error_text(&err, ret));
        return ret < 0 ? 1 : 0;
}

int img_seal(void)
{
        struct hvb_error err = ERROR_INIT;
        int ret = args.is_off ? 0 : sandbox_seal(&err);

        if (ret < 0)
                img_error("%s", error_text(&err, ret));
        return ret < 0 ? 1 : 0;
}

const struct policy *img_policy(void)
{
        g_assert(policy != NULL);       /* after img_contain */
        return policy;
}
