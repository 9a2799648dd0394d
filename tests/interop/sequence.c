/*
 * sequence.c - one random sequence from creation to verdict; see sequence.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "sequence.h"

#include <errno.h>
#include <stdarg.h>

#include <glib.h>

int sequence_fail(struct sequence *seq, const char *format, ...)
{
        va_list args;

        if (seq->difference)
                return -EBADMSG;
        va_start(args, format);
        seq->difference = g_strdup_vprintf(format, args);
        va_end(args);
        sequence_log(seq, "DIFFERENCE: %s", seq->difference);
        return -EBADMSG;
}

/* At once on disk: the list must survive a crash of the driver. */
void sequence_log(struct sequence *seq, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        vfprintf(seq->log, format, args);
        va_end(args);
        fputc('\n', seq->log);
        fflush(seq->log);
}

static int run_steps(struct sequence *seq)
{
        int ret = subject_create(seq);

        if (ret == 0)
                ret = subject_open(seq, true);
        while (ret == 0 && seq->op_count < seq->plan.op_count) {
                unsigned draw = rng_below(&seq->rng, 100);

                if (draw < 55)
                        ret = batch_run(seq);
                else if (draw < 93)
                        ret = control_step(seq);
                else
                        ret = handoff_run(seq);
        }
        return ret == 0 ? verify_all(seq) : ret;
}

static int sequence_begin(struct sequence *seq, const char *directory)
{
        g_autofree char *log_path = g_build_filename(directory, "operations", NULL);
        char text[512];

        seq->directory = g_strdup(directory);
        seq->path = g_build_filename(directory, "image.qcow2", NULL);
        seq->policy = policy_new_all();
        seq->rng.state = seq->plan.seed ^ 0x5deece66d;
        model_init(&seq->model, seq->plan.size_bytes);
        seq->log = fopen(log_path, "we");
        if (!seq->log) {
                seq->difference = g_strdup_printf("%s: %s", log_path, g_strerror(errno));
                return -EIO;
        }
        plan_describe(&seq->plan, text, sizeof(text));
        sequence_log(seq, "%s", text);
        return 0;
}

int sequence_run(const struct plan *plan, const char *directory, char **ret_difference)
{
        struct sequence seq = { .plan = *plan };
        int ret = sequence_begin(&seq, directory);

        if (ret == 0)
                ret = run_steps(&seq);
        tally_add(sequences, 1);
        tally_add(operations, seq.op_count);
        if (ret < 0) {
                *ret_difference = seq.difference;
                return ret;             /* requests may be in flight; the process ends */
        }
        fclose(seq.log);
        model_clear(&seq.model);
        control_forget_vm_state(&seq);
        policy_free(seq.policy);
        g_free(seq.directory);
        g_free(seq.path);
        g_free(seq.backing_path);
        return 0;
}
