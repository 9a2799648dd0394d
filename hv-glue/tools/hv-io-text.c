/*
 * hv-io-text.c - numbers in, reports and dumps out, in qemu-io's forms.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

/* The power of 1024 that a suffix stands for, or -1. */
static int suffix_power(const char *suffix)
{
        static const char letters[] = "BKMGTPE";
        const char *found;

        if (!*suffix)
                return 0;
        if (suffix[1])
                return -1;
        found = strchr(letters, toupper((unsigned char)*suffix));
        return found ? found - letters : -1;
}

static int number_error(const char *text, int code)
{
        if (code == -ERANGE)
                printf("Parsing error: argument too large -- %s\n", text);
        else
                printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix"
                       " -- %s\n", text);
        return code;
}

int text_number(const char *text, int64_t *ret_value)
{
        bool hex = g_ascii_strncasecmp(text, "0x", 2) == 0;
        double fraction = 0;
        uint64_t whole, bytes;
        char *end;
        int power;

        if (!isdigit((unsigned char)*text))
                return number_error(text, -EINVAL);
        errno = 0;
        whole = strtoull(text, &end, hex ? 16 : 10);
        if (errno == ERANGE)
                return number_error(text, -ERANGE);
        if (*end == '.' && !hex)
                fraction = g_ascii_strtod(end, &end);
        power = suffix_power(end);
        if (power < 0)
                return number_error(text, -EINVAL);
        bytes = whole << (10 * power);
        if (bytes >> (10 * power) != whole || bytes > INT64_MAX)
                return number_error(text, -ERANGE);
        *ret_value = bytes + (int64_t)(fraction * (double)(1ull << (10 * power)));
        return 0;
}

int text_pattern(const char *text, uint8_t *ret_byte)
{
        char *end;
        long value = strtol(text, &end, 0);

        if (end == text || *end || value < 0 || value > 255) {
                printf("%s is not a valid pattern byte\n", text);
                return -EINVAL;
        }
        *ret_byte = value;
        return 0;
}

void text_size(double value, char *buf, size_t buf_bytes)
{
        static const char *const units[] = {
                "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
        };
        char number[64];
        unsigned unit = 0;
        char *point;

        while (value >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
                value /= 1024;
                unit++;
        }
        snprintf(number, sizeof(number), unit ? "%.3f" : "%f", value);
        point = strstr(number, ".000");
        if (point)
                *point = 0;
        snprintf(buf, buf_bytes, "%s %s", number, units[unit]);
}

struct timespec text_now(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now;
}

/* "00.01 sec"; from a minute on, or if fixed, "0:01:00.00" */
static void time_text(double seconds, bool fixed, char *buf, size_t buf_bytes)
{
        unsigned whole = seconds;
        unsigned hundredths = (seconds - whole) * 100;

        if (fixed || whole >= 60)
                snprintf(buf, buf_bytes, "%u:%02u:%02u.%02u", whole / 3600, whole / 60 % 60,
                         whole % 60, hundredths);
        else
                snprintf(buf, buf_bytes, "%02u.%02u sec", whole, hundredths);
}

void text_report(const char *verb, const struct timespec *start, uint64_t offset,
                 uint64_t wanted_bytes, uint64_t done_bytes, bool terse)
{
        struct timespec now = text_now();
        double seconds = (now.tv_sec - start->tv_sec) + (now.tv_nsec - start->tv_nsec) / 1e9;
        double per_sec = 1 / (seconds > 0 ? seconds : 1e-9);
        char took[64], size[64], rate[64];

        time_text(seconds, terse, took, sizeof(took));
        if (terse) {
                printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", done_bytes, took, done_bytes * per_sec,
                       per_sec);
                return;
        }
        text_size(done_bytes, size, sizeof(size));
        text_size(done_bytes * per_sec, rate, sizeof(rate));
        printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", verb, done_bytes,
               wanted_bytes, offset);
        printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", size, took, rate, per_sec);
}

void text_dump(const uint8_t *bytes, uint64_t offset, size_t length_bytes)
{
        for (size_t row = 0; row < length_bytes; row += 16) {
                size_t n = length_bytes - row < 16 ? length_bytes - row : 16;

                printf("%08" PRIx64 ":  ", offset + row);
                for (size_t i = 0; i < n; i++)
                        printf("%02x ", bytes[row + i]);
                putchar(' ');
                for (size_t i = 0; i < n; i++)
                        putchar(g_ascii_isalnum(bytes[row + i]) ? bytes[row + i] : '.');
                putchar('\n');
        }
}

int text_failed(const char *verb, int ret)
{
        printf("%s failed: %s\n", verb, strerror(-ret));
        return ret;
}

int text_error(const struct hvb_error *err, int ret)
{
        fflush(stdout);
        fprintf(stderr, "hv-io: %s\n", error_text(err, ret));
        return ret;
}
