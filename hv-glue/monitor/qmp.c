/*
 * qmp.c - a program's session: negotiation, calls, replies.
 *
 *   greeting  ->  NEGOTIATING  -qmp_capabilities->  READY
 *
 * Commands are executed in their order, one at a time; the input of one that waits for
 * its end waits with it.  There is no out-of-band execution, hence no capability.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "monitor/json-frame.h"
#include "monitor/json-text.h"
#include "monitor/session.h"

struct qmp_session {
        struct monitors *monitors;
        struct stream *stream;
        void (*closed)(void *opaque);
        void *opaque;
        struct json_frame frame;
        bool ready;
        struct qmp_call *call;          /* at work */
        bool held;                      /* it is, and did not end at once */
};

/* ---- Replies ------------------------------------------------------------------------ */

JsonNode *qmp_object(JsonObject *object)
{
        JsonNode *node = json_node_new(JSON_NODE_OBJECT);

        json_node_take_object(node, object);
        return node;
}

JsonNode *qmp_array(JsonArray *array)
{
        JsonNode *node = json_node_new(JSON_NODE_ARRAY);

        json_node_take_array(node, array);
        return node;
}

/* {member: value, "id": id}; both values are copied. */
static void reply(struct qmp_session *session, const char *member, JsonNode *value, JsonNode *id)
{
        g_autoptr(GString) line = g_string_new(NULL);

        g_string_printf(line, "{\"%s\": ", member);
        json_text_append(line, value);
        if (id != NULL) {
                g_string_append(line, ", \"id\": ");
                json_text_append(line, id);
        }
        g_string_append(line, "}\r\n");
        stream_write(session->stream, line->str, line->len);
}

static void reply_error(struct qmp_session *session, const char *class, const char *text,
                        JsonNode *id)
{
        JsonObject *error = json_object_new();
        g_autoptr(JsonNode) node = qmp_object(error);

        json_object_set_string_member(error, "class", class);
        json_object_set_string_member(error, "desc", text);
        reply(session, "error", node, id);
}

static JsonNode *request_id(JsonNode *request)
{
        return json_object_get_member(json_node_get_object(request), "id");
}

/* The call is over: the session, if it is there, goes on. */
static void end_call(struct qmp_call *call)
{
        struct qmp_session *session = call->session;

        if (session != NULL) {
                session->call = NULL;
                if (session->held)
                        stream_release(session->stream);
                session->held = false;
        }
        json_node_unref(call->request);
        g_free(call);
}

void qmp_call_return(struct qmp_call *call, JsonNode *value)
{
        if (value == NULL)
                value = qmp_object(json_object_new());
        if (call->session != NULL)
                reply(call->session, "return", value, request_id(call->request));
        json_node_unref(value);
        end_call(call);
}

void qmp_call_fail(struct qmp_call *call, const char *text)
{
        if (call->session != NULL)
                reply_error(call->session, "GenericError", text, request_id(call->request));
        end_call(call);
}

/* ---- Requests ----------------------------------------------------------------------- */

/* {"execute": STRING, "arguments": OBJECT, "id": any}.  0 or -EINVAL with err. */
static int check_request(JsonObject *request, struct hvb_error *err)
{
        JsonObjectIter iter;
        const char *name;
        JsonNode *value;

        json_object_iter_init_ordered(&iter, request);
        while (json_object_iter_next_ordered(&iter, &name, &value)) {
                if (strcmp(name, "execute") == 0) {
                        if (json_node_get_value_type(value) != G_TYPE_STRING
                            || !JSON_NODE_HOLDS_VALUE(value))
                                return error_set(err, -EINVAL, "QMP input member 'execute' "
                                                 "must be a string");
                } else if (strcmp(name, "arguments") == 0) {
                        if (!JSON_NODE_HOLDS_OBJECT(value))
                                return error_set(err, -EINVAL, "QMP input member 'arguments' "
                                                 "must be an object");
                } else if (strcmp(name, "id") != 0) {
                        return error_set(err, -EINVAL, "QMP input member '%s' is unexpected",
                                         name);
                }
        }
        if (!json_object_has_member(request, "execute"))
                return error_set(err, -EINVAL, "QMP input lacks member 'execute'");
        return 0;
}

static const struct qmp_command *find_command(const char *name)
{
        for (const struct qmp_command *command = qmp_commands; command->name != NULL; command++)
                if (strcmp(command->name, name) == 0)
                        return command;
        return NULL;
}

/* The one thing that may be asked for first, and no later. */
static void negotiate(struct qmp_session *session, JsonObject *arguments, JsonNode *id)
{
        static const struct qmp_param params[] = { { "enable", QMP_STRINGS, true }, { 0 } };
        g_autoptr(JsonNode) empty = qmp_object(json_object_new());
        struct hvb_error err = ERROR_INIT;
        int ret = qmp_params_check(params, arguments, &err);

        if (ret == 0 && arguments != NULL && json_object_has_member(arguments, "enable")
            && json_array_get_length(json_object_get_array_member(arguments, "enable")) > 0)
                ret = error_set(&err, -EINVAL, "No capability is offered");
        if (ret < 0) {
                reply_error(session, "GenericError", err.text, id);
                return;
        }
        session->ready = true;
        reply(session, "return", empty, id);
}

static void start_call(struct qmp_session *session, const struct qmp_command *command,
                       JsonNode *request, JsonObject *arguments)
{
        struct qmp_call *call = g_new0(struct qmp_call, 1);

        *call = (struct qmp_call) {
                .monitors = session->monitors, .session = session, .command = command,
                .request = json_node_ref(request), .arguments = arguments,
        };
        session->call = call;
        command->run(call);
        if (session->call != NULL) {
                session->held = true;
                stream_hold(session->stream);
        }
}

static void serve(struct qmp_session *session, JsonNode *request)
{
        JsonObject *object = json_node_get_object(request);
        JsonNode *id = json_object_get_member(object, "id");
        struct hvb_error err = ERROR_INIT;
        const struct qmp_command *command;
        JsonObject *arguments = NULL;
        g_autofree char *text = NULL;
        const char *name;

        if (check_request(object, &err) < 0) {
                reply_error(session, "GenericError", err.text, id);
                return;
        }
        name = json_object_get_string_member(object, "execute");
        if (json_object_has_member(object, "arguments"))
                arguments = json_object_get_object_member(object, "arguments");
        command = find_command(name);
        if (!session->ready && strcmp(name, "qmp_capabilities") == 0) {
                negotiate(session, arguments, id);
        } else if (!session->ready) {
                reply_error(session, "CommandNotFound", "Expecting capabilities negotiation with "
                            "'qmp_capabilities'", id);
        } else if (strcmp(name, "qmp_capabilities") == 0) {
                reply_error(session, "CommandNotFound", "Capabilities negotiation is already "
                            "complete, command ignored", id);
        } else if (command == NULL) {
                text = g_strdup_printf("The command %s has not been found", name);
                reply_error(session, "CommandNotFound", text, id);
        } else if (qmp_params_check(command->params, arguments, &err) < 0) {
                reply_error(session, "GenericError", err.text, id);
        } else {
                start_call(session, command, request, arguments);
        }
}

static void take_byte(void *opaque, uint8_t byte)
{
        struct qmp_session *session = opaque;
        g_autoptr(JsonNode) request = NULL;
        const char *error = NULL;
        int ret = json_frame_byte(&session->frame, byte, &error);

        if (ret > 0)
                request = json_frame_parse(&session->frame, &error);
        if (error != NULL)
                reply_error(session, "GenericError", error, NULL);
        else if (request != NULL)
                serve(session, request);
}

/* ---- Beginning and end -------------------------------------------------------------- */

static void stream_closed(void *opaque)
{
        struct qmp_session *session = opaque;

        session->closed(session->opaque);
}

static void greet(struct qmp_session *session)
{
        g_autoptr(JsonNode) version = qmp_version(session->monitors);
        g_autoptr(GString) line = g_string_new("{\"QMP\": {\"version\": ");

        json_text_append(line, version);
        g_string_append(line, ", \"capabilities\": []}}\r\n");
        stream_write(session->stream, line->str, line->len);
}

struct qmp_session *qmp_session_new(struct monitors *monitors, int fd,
                                    void (*closed)(void *opaque), void *opaque)
{
        static const struct stream_ops ops = { .byte = take_byte, .closed = stream_closed };
        struct qmp_session *session = g_new0(struct qmp_session, 1);

        *session = (struct qmp_session) {
                .monitors = monitors, .closed = closed, .opaque = opaque,
        };
        json_frame_init(&session->frame);
        session->stream = stream_new(fd, fd, &ops, session);
        greet(session);
        return session;
}

void qmp_session_free(struct qmp_session *session)
{
        if (session->call != NULL)
                session->call->session = NULL;
        stream_free(session->stream);
        json_frame_clear(&session->frame);
        g_free(session);
}

void qmp_session_event(struct qmp_session *session, const char *line)
{
        if (session->ready)
                stream_write(session->stream, line, strlen(line));
}
