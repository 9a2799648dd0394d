/*
 * machine-run.c - whether a machine runs, and who may change that.
 *
 * A change takes time (vcpus come to a stop, requests end), so it is not made under the
 * lock: `changing` keeps others out, who wait; a job that has paused the machine keeps them
 * out for longer, so they get -EBUSY.
 *
 * What a guest wants (a reset) comes from a vcpu's thread, which cannot wait for vcpus to
 * stop: it leaves a note in `wanted`, asks them to stop, and rings for the main thread.  Who
 * brings the machine to rest takes the note, so that no state is saved or left in which a
 * reset hangs in the air: at rest, no vcpu can write another one.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <time.h>

#include "host/error.h"
#include "vm/irqchip.h"
#include "vm/machine-parts.h"

const char *run_state_name(enum run_state state)
{
        static const char *const names[] = {
                [RUN_STATE_PRELAUNCH] = "prelaunch",
                [RUN_STATE_RUNNING] = "running",
                [RUN_STATE_PAUSED] = "paused",
                [RUN_STATE_SAVE_VM] = "save-vm",
                [RUN_STATE_RESTORE_VM] = "restore-vm",
                [RUN_STATE_IO_ERROR] = "io-error",
                [RUN_STATE_INTERNAL_ERROR] = "internal-error",
                [RUN_STATE_SHUTDOWN] = "shutdown",
        };

        return names[state];
}

/* ---- News for the main thread --------------------------------------------------------- */

static void ring(struct machine *m)
{
        g_source_set_ready_time(m->bell, 0);
}

static void send_news(struct machine *m, const struct machine_news *news)
{
        g_async_queue_push(m->news, g_memdup2(news, sizeof(*news)));
        ring(m);
}

void machine_tell(struct machine *m, const char *text)
{
        send_news(m, &(struct machine_news) { .kind = NEWS_MESSAGE, .text = g_strdup(text) });
}

static void news_free(void *opaque)
{
        struct machine_news *news = opaque;

        g_free(news->text);
        g_free(news);
}

static void deliver(struct machine *m, const struct machine_news *news)
{
        const struct machine_watch *watch = &m->watch;

        switch (news->kind) {
        case NEWS_STATE:
                if (watch->run_state != NULL)
                        watch->run_state(watch->opaque, news->state);
                break;
        case NEWS_MESSAGE:
                if (watch->message != NULL)
                        watch->message(watch->opaque, news->text);
                break;
        case NEWS_SHUTDOWN:
                if (watch->shutdown != NULL)
                        watch->shutdown(watch->opaque);
                break;
        case NEWS_RESET:
                if (watch->reset != NULL)
                        watch->reset(watch->opaque, news->by_guest);
                break;
        }
}

/* ---- Time ----------------------------------------------------------------------------- */

/* With the lock. */
static uint64_t clock_now(const struct machine *m)
{
        gint64 running = m->clock_since == 0 ? 0 : g_get_monotonic_time() - m->clock_since;

        return m->clock_nsec + (uint64_t) running * 1000;
}

uint64_t machine_clock_nsec(struct machine *m)
{
        uint64_t nsec;

        pthread_mutex_lock(&m->lock);
        nsec = clock_now(m);
        pthread_mutex_unlock(&m->lock);
        return nsec;
}

void machine_set_clock_nsec(struct machine *m, uint64_t nsec)
{
        pthread_mutex_lock(&m->lock);
        g_assert(m->paused_by_job && m->clock_since == 0);
        m->clock_nsec = nsec;
        m->loaded = true;
        pthread_mutex_unlock(&m->lock);
}

/* ---- Vcpus and devices; whoever is changing the state ---------------------------------- */

static void let_run(struct machine *m)
{
        if (!m->at_rest)
                return;
        m->at_rest = false;
        for (unsigned i = m->devices->len; i-- > 0;) {
                struct device *device = g_ptr_array_index(m->devices, i);

                if (device->ops->resume != NULL)
                        device->ops->resume(device);
        }
        clock_start(m->clock);
        /* Not on memory that has been lost meanwhile: the bell has rung for that. */
        pthread_mutex_lock(&m->lock);
        m->clock_since = g_get_monotonic_time();
        if (!(m->wanted & WANT_FAIL))
                vcpus_start(m->vcpus);
        pthread_mutex_unlock(&m->lock);
}

static void bring_to_rest(struct machine *m)
{
        if (m->at_rest)
                return;
        m->at_rest = true;
        vcpus_stop(m->vcpus);
        clock_stop(m->clock);
        pthread_mutex_lock(&m->lock);
        m->clock_nsec = clock_now(m);
        m->clock_since = 0;
        pthread_mutex_unlock(&m->lock);
        for (unsigned i = 0; i < m->devices->len; i++) {
                struct device *device = g_ptr_array_index(m->devices, i);

                if (device->ops->quiesce != NULL)
                        device->ops->quiesce(device);
        }
}

/* ---- Changing the state ---------------------------------------------------------------- */

/* The lock is held from here to end_change, but for what is done unlocked between. */
static int begin_change(struct machine *m, struct hvb_error *err)
{
        pthread_mutex_lock(&m->lock);
        while (m->changing)
                pthread_cond_wait(&m->changed, &m->lock);
        if (m->paused_by_job) {
                pthread_mutex_unlock(&m->lock);
                return error_set(err, -EBUSY, "a snapshot operation has paused the machine");
        }
        m->changing = true;
        pthread_mutex_unlock(&m->lock);
        return 0;
}

static void end_change(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        m->changing = false;
        pthread_cond_broadcast(&m->changed);
        if (m->wanted != 0)
                ring(m);
        pthread_mutex_unlock(&m->lock);
}

static void set_state(struct machine *m, enum run_state state)
{
        bool is_new;

        pthread_mutex_lock(&m->lock);
        is_new = m->state != state;
        m->state = state;
        pthread_mutex_unlock(&m->lock);
        if (is_new)
                send_news(m, &(struct machine_news) { .kind = NEWS_STATE, .state = state });
}

enum run_state machine_run_state(struct machine *m)
{
        enum run_state state;

        pthread_mutex_lock(&m->lock);
        state = m->state;
        pthread_mutex_unlock(&m->lock);
        return state;
}

/* ---- What was wanted ------------------------------------------------------------------- */

void machine_want(struct machine *m, unsigned want, const char *text)
{
        pthread_mutex_lock(&m->lock);
        m->wanted |= want;
        if (text != NULL && m->fail_text == NULL)
                m->fail_text = g_strdup(text);
        /* Before the note can be taken: not what runs after that is to stop. */
        vcpus_ask_stop(m->vcpus);
        pthread_mutex_unlock(&m->lock);
        ring(m);
}

void machine_memory_lost(struct machine *m, const char *text)
{
        machine_want(m, WANT_FAIL, text);
}

static unsigned take_wanted(struct machine *m, char **ret_text)
{
        unsigned wanted;

        pthread_mutex_lock(&m->lock);
        wanted = m->wanted;
        m->wanted = 0;
        *ret_text = g_steal_pointer(&m->fail_text);
        pthread_mutex_unlock(&m->lock);
        return wanted;
}

void machine_forget_wanted(struct machine *m)
{
        g_autofree char *text = NULL;

        g_assert(m->paused_by_job);
        take_wanted(m, &text);
}

/* Everything as after power-on; the machine is at rest then.  Running stays running. */
static int reset(struct machine *m, bool by_guest, struct hvb_error *err)
{
        g_autofree char *text = NULL;
        int ret;

        bring_to_rest(m);
        guest_memory_renew(&m->mem);
        take_wanted(m, &text);                  /* of the guest that ends here, and its RAM */
        for (unsigned i = 0; i < m->devices->len; i++) {
                struct device *device = g_ptr_array_index(m->devices, i);

                if (device->ops->reset != NULL)
                        device->ops->reset(device);
        }
        ret = machine_boot(m, err);
        send_news(m, &(struct machine_news) { .kind = NEWS_RESET, .by_guest = by_guest });
        if (ret < 0)
                set_state(m, RUN_STATE_INTERNAL_ERROR);
        else if (m->state != RUN_STATE_RUNNING)
                set_state(m, RUN_STATE_PRELAUNCH);
        return ret;
}

/* While changing: the machine comes to rest, and what was wanted is done.  It may still be
 * RUNNING then: the caller has it stop or run on. */
static void rest_and_do_wanted(struct machine *m)
{
        g_autofree char *text = NULL;
        struct hvb_error err = ERROR_INIT;
        unsigned wanted;

        bring_to_rest(m);
        wanted = take_wanted(m, &text);
        if (wanted & WANT_FAIL) {
                set_state(m, RUN_STATE_INTERNAL_ERROR);
                machine_tell(m, text);
        }
        if (m->state != RUN_STATE_RUNNING)
                return;                         /* a disk's note: cont retries anyway */
        if (wanted & WANT_POWER_OFF || (wanted & WANT_RESET && m->no_reboot)) {
                set_state(m, RUN_STATE_SHUTDOWN);
                send_news(m, &(struct machine_news) { .kind = NEWS_SHUTDOWN });
        } else if (wanted & WANT_RESET) {
                if (reset(m, true, &err) < 0)
                        machine_tell(m, err.text);
        } else if (wanted & WANT_IO_STOP) {
                set_state(m, RUN_STATE_IO_ERROR);
        }
}

static bool is_anything_wanted(struct machine *m)
{
        bool wanted;

        pthread_mutex_lock(&m->lock);
        wanted = m->wanted != 0;
        pthread_mutex_unlock(&m->lock);
        return wanted;
}

static void run_if_running(struct machine *m)
{
        if (m->state == RUN_STATE_RUNNING)
                let_run(m);
}

/* Main thread: does what is wanted, then tells the news. */
static gboolean bell_rang(GSource *source, GSourceFunc callback, gpointer opaque)
{
        struct machine *m = opaque;
        struct machine_news *news;

        (void) callback;
        g_source_set_ready_time(source, -1);
        if (is_anything_wanted(m) && begin_change(m, NULL) == 0) {
                rest_and_do_wanted(m);
                run_if_running(m);
                end_change(m);
        }
        while ((news = g_async_queue_try_pop(m->news)) != NULL) {
                deliver(m, news);
                news_free(news);
        }
        return G_SOURCE_CONTINUE;
}

/* ---- What monitors do ------------------------------------------------------------------ */

static bool is_over(enum run_state state)
{
        return state == RUN_STATE_INTERNAL_ERROR || state == RUN_STATE_SHUTDOWN;
}

int machine_cont(struct machine *m, struct hvb_error *err)
{
        int ret = begin_change(m, err);

        if (ret < 0)
                return ret;
        if (is_over(m->state)) {
                ret = error_set(err, -EPERM, "Resetting the Virtual Machine is required");
        } else if (m->state != RUN_STATE_RUNNING) {
                for (unsigned i = 0; i < m->disk_count; i++)
                        virtio_blk_retry(m->slots[i].blk);
                set_state(m, RUN_STATE_RUNNING);
                let_run(m);
        }
        end_change(m);
        return ret;
}

static void start_flush(struct drive *drive, struct hvb_request *request, void *opaque)
{
        (void) opaque;
        drive_driver(drive)->flush(drive_queue(drive), request);
}

/* All disks, even when one fails; the first error. */
static int flush_disks(struct machine *m, struct hvb_error *err)
{
        const struct drive_control control = { .start = start_flush };
        int first = 0;

        for (unsigned i = 0; i < m->disk_count; i++) {
                int ret = m->disks[i].read_only ? 0
                        : drive_thread_run(m->disks[i].thread, &control);

                if (ret < 0 && first == 0)
                        first = error_set(err, ret, "disk '%s': flush: %s", m->disks[i].id,
                                          g_strerror(-ret));
        }
        return first;
}

int machine_stop(struct machine *m, struct hvb_error *err)
{
        int ret = begin_change(m, err);

        if (ret < 0)
                return ret;
        rest_and_do_wanted(m);
        if (m->state == RUN_STATE_RUNNING)
                set_state(m, RUN_STATE_PAUSED);
        ret = flush_disks(m, err);
        end_change(m);
        return ret;
}

int machine_reset(struct machine *m, struct hvb_error *err)
{
        int ret = begin_change(m, err);

        if (ret < 0)
                return ret;
        ret = reset(m, false, err);
        run_if_running(m);
        end_change(m);
        return ret;
}

/* ---- What jobs do ---------------------------------------------------------------------- */

int machine_pause(struct machine *m, enum run_state during, struct hvb_error *err)
{
        int ret = begin_change(m, err);

        if (ret < 0)
                return ret;
        m->stopped_since = g_get_monotonic_time();
        rest_and_do_wanted(m);
        if (during == RUN_STATE_SAVE_VM && m->state == RUN_STATE_INTERNAL_ERROR) {
                end_change(m);
                return error_set(err, -EPERM, "the machine has failed; only loadvm or system_reset "
                                 "lead out of that");
        }
        m->state_before = m->state;
        m->loaded = false;
        set_state(m, during);
        pthread_mutex_lock(&m->lock);
        m->paused_by_job = true;
        pthread_mutex_unlock(&m->lock);
        end_change(m);
        return 0;
}

/* The job ends; others may change the state again. */
static void leave_pause(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        g_assert(m->paused_by_job && !m->changing);
        m->paused_by_job = false;
        m->changing = true;
        pthread_mutex_unlock(&m->lock);
}

void machine_resume(struct machine *m, uint64_t *ret_pause_nsec)
{
        enum run_state state;
        g_autofree char *text = NULL;

        leave_pause(m);
        state = m->state_before;
        if (m->loaded) {
                /* Since machine_forget_wanted no vcpu has run: what fails is the new RAM. */
                unsigned wanted = take_wanted(m, &text);

                if (is_over(state) || state == RUN_STATE_IO_ERROR)
                        state = RUN_STATE_PAUSED;
                if (wanted & WANT_FAIL) {
                        state = RUN_STATE_INTERNAL_ERROR;
                        machine_tell(m, text);
                }
        }
        set_state(m, state);
        run_if_running(m);
        if (ret_pause_nsec != NULL)
                *ret_pause_nsec = (g_get_monotonic_time() - m->stopped_since) * 1000;
        end_change(m);
}

void machine_fail(struct machine *m, const char *text)
{
        leave_pause(m);
        set_state(m, RUN_STATE_INTERNAL_ERROR);
        machine_tell(m, text);
        end_change(m);
}

/* ---- Life ------------------------------------------------------------------------------ */

void machine_set_watch(struct machine *m, const struct machine_watch *watch)
{
        m->watch = *watch;
}

void machine_run_init(struct machine *m)
{
        static GSourceFuncs bell_funcs = { .dispatch = bell_rang };

        pthread_mutex_init(&m->lock, NULL);
        pthread_cond_init(&m->changed, NULL);
        m->at_rest = true;
        m->news = g_async_queue_new_full(news_free);
        m->bell = g_source_new(&bell_funcs, sizeof(GSource));
        g_source_set_name(m->bell, "machine");
        g_source_set_callback(m->bell, NULL, m, NULL);
        g_source_attach(m->bell, NULL);
}

void machine_rest(struct machine *m)
{
        bring_to_rest(m);
}

void machine_run_clear(struct machine *m)
{
        g_source_destroy(m->bell);
        g_source_unref(m->bell);
        g_async_queue_unref(m->news);
        g_free(m->fail_text);
        pthread_cond_destroy(&m->changed);
        pthread_mutex_destroy(&m->lock);
}
