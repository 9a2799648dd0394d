/*
 * test-irqchip.c - interrupt controllers that were saved while lines were high.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/irqchip.h"

#include <glib.h>
#include <string.h>

enum { DISK_IRQ = 5, LEVEL_IRQ = 9, EDGE_PIN = 5, LEVEL_PIN = 9 };

/* All lines high, requests and everything else of them set; two are level-triggered. */
static void set_all(struct kvm_irqchip *chips)
{
        memset(chips, 0, IRQCHIPS * sizeof(chips[0]));
        for (unsigned i = 0; i < IRQCHIPS; i++)
                memset(&chips[i].chip, 0xff, sizeof(chips[i].chip));
        chips[0].chip.pic.elcr = 0;
        chips[1].chip.pic.elcr = 1 << (LEVEL_IRQ - 8);
        for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
                chips[2].chip.ioapic.redirtbl[i].fields.trig_mode = i == LEVEL_PIN;
}

/* What pulses come next are edges, and what was requested before stays so. */
static void test_edges_fall(void)
{
        struct kvm_irqchip before[IRQCHIPS];
        struct kvm_irqchip chips[IRQCHIPS];

        set_all(before);
        memcpy(chips, before, sizeof(chips));
        irqchip_edges_fall(chips);
        g_assert_cmphex(chips[0].chip.pic.last_irr, ==, 0);
        g_assert_cmphex(chips[1].chip.pic.last_irr, ==, 1 << (LEVEL_IRQ - 8));
        g_assert_cmphex(chips[2].chip.ioapic.irr & 1u << EDGE_PIN, ==, 0);
        g_assert_cmphex(chips[2].chip.ioapic.irr & 1u << LEVEL_PIN, ==, 1u << LEVEL_PIN);
        g_assert_cmphex(chips[0].chip.pic.irr & 1 << DISK_IRQ, ==, 1 << DISK_IRQ);

        /* Nothing else. */
        for (unsigned i = 0; i < 2; i++)
                chips[i].chip.pic.last_irr = before[i].chip.pic.last_irr;
        chips[2].chip.ioapic.irr = before[2].chip.ioapic.irr;
        g_assert_cmpmem(chips, sizeof(chips), before, sizeof(before));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/irqchip/edges-fall", test_edges_fall);
        return g_test_run();
}
