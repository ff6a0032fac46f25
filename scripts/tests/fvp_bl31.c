/* SPDX-License-Identifier: GPL-2.0-only */
/* Has TF-A's own code read a device tree as BL31 does on the board, and prints what it found. */

#include <fconf_hw_config_getter.h>

int complaints;

int main(int argc, char **argv)
{
    static _Alignas(8) char tree[1 << 16];
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uintptr_t at = (uintptr_t)tree;
    int errors;

    if (!file || !fread(tree, 1, sizeof(tree), file))
        return 2;

    errors = (fconf_populate_gicv3_config(at) != 0) + (fconf_populate_topology(at) != 0) +
             (fconf_populate_uart_config(at) != 0) + (fconf_populate_cpu_timer(at) != 0) +
             (fconf_populate_dram_layout(at) != 0);

    printf("gicd=%#lx gicr=%#lx\n", gicv3_config.gicd_base, gicv3_config.gicr_base);
    printf("clusters=%u most=%u cpus=%u levels=%u\n", soc_topology.plat_cluster_count,
           soc_topology.cluster_cpu_count, soc_topology.plat_cpu_count, soc_topology.plat_max_pwr_level);
    printf("uart=%#lx at %u Hz, timer at %u Hz\n", uart_serial_config.uart_base,
           uart_serial_config.uart_clk, cpu_timer.clock_freq);
    for (uint64_t i = 0; i < dram_layout.num_banks; i++)
        printf("memory %#lx %#lx\n", dram_layout.dram_bank[i].base, dram_layout.dram_bank[i].size);

    return errors || complaints;
}
