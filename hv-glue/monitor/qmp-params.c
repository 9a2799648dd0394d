/*
 * qmp-params.c - arguments of QMP commands, judged.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "monitor/session.h"

static const char *const type_names[] = {
        [QMP_STRING] = "string", [QMP_INT] = "integer", [QMP_BOOL] = "boolean",
        [QMP_STRINGS] = "array",
};

static bool has_type(JsonNode *node, enum qmp_type type)
{
        GType value_type = JSON_NODE_HOLDS_VALUE(node) ? json_node_get_value_type(node)
                : G_TYPE_INVALID;

        switch (type) {
        case QMP_STRING:
                return value_type == G_TYPE_STRING;
        case QMP_INT:
                return value_type == G_TYPE_INT64;
        case QMP_BOOL:
                return value_type == G_TYPE_BOOLEAN;
        case QMP_STRINGS:
                return JSON_NODE_HOLDS_ARRAY(node);
        }
        g_assert_not_reached();
}

static int wrong_type(struct hvb_error *err, const char *name, enum qmp_type type)
{
        return error_set(err, -EINVAL, "Invalid parameter type for '%s', expected: %s", name,
                         type_names[type]);
}

static int check_param(const struct qmp_param *param, JsonNode *node, struct hvb_error *err)
{
        JsonArray *array;

        if (node == NULL)
                return param->optional ? 0
                        : error_set(err, -EINVAL, "Parameter '%s' is missing", param->name);
        if (!has_type(node, param->type))
                return wrong_type(err, param->name, param->type);
        if (param->type != QMP_STRINGS)
                return 0;
        array = json_node_get_array(node);
        for (guint i = 0; i < json_array_get_length(array); i++) {
                if (!has_type(json_array_get_element(array, i), QMP_STRING)) {
                        g_autofree char *name = g_strdup_printf("%s[%u]", param->name, i);

                        return wrong_type(err, name, QMP_STRING);
                }
        }
        return 0;
}

static bool is_known(const struct qmp_param *params, const char *name)
{
        for (; params->name != NULL; params++)
                if (strcmp(params->name, name) == 0)
                        return true;
        return false;
}

/* As QEMU, the first that is wrong in the order of the command's description. */
int qmp_params_check(const struct qmp_param *params, JsonObject *arguments,
                     struct hvb_error *err)
{
        JsonObjectIter iter;
        const char *name;

        for (const struct qmp_param *param = params; param->name != NULL; param++) {
                int ret = check_param(param, arguments == NULL ? NULL
                                      : json_object_get_member(arguments, param->name), err);

                if (ret < 0)
                        return ret;
        }
        if (arguments == NULL)
                return 0;
        json_object_iter_init_ordered(&iter, arguments);
        while (json_object_iter_next_ordered(&iter, &name, NULL))
                if (!is_known(params, name))
                        return error_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
        return 0;
}

const char *qmp_arg_string(const struct qmp_call *call, const char *name)
{
        if (call->arguments == NULL || !json_object_has_member(call->arguments, name))
                return NULL;
        return json_object_get_string_member(call->arguments, name);
}

char **qmp_arg_strings(const struct qmp_call *call, const char *name)
{
        JsonArray *array = json_object_get_array_member(call->arguments, name);
        guint count = json_array_get_length(array);
        char **strings = g_new0(char *, count + 1);

        for (guint i = 0; i < count; i++)
                strings[i] = g_strdup(json_array_get_string_element(array, i));
        return strings;
}
