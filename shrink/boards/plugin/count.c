/* A TCG plugin for qemu-aarch64: counts the instructions of marked regions, by class.
 *
 * The guest marks region k by closing file descriptors that cannot exist: START + k begins it, STOP + k ends it.
 * At translation a block's instructions are sorted by their words; at execution of a block, in the thread that began
 * the region, its counts are added. Every end of a region writes one line: k and the counts.
 *
 * The declarations below are those of QEMU's plugin interface, version 1, that this file uses.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*trans_cb)(plugin_id, struct qemu_plugin_tb *);
typedef void (*exec_cb)(unsigned int, void *);
typedef void (*syscall_cb)(plugin_id, unsigned int, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, trans_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, exec_cb, int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { NO_REGISTERS = 0, CLOSE = 57, START = 0x5AFE, STOP = 0x5AFF };
enum class { INT, BRANCH, LOAD, STORE, VLOAD, VSTORE, FMA, DOT, MATRIX, WIDEN, SIMD, SVE, OTHER, CLASSES };

struct counts {
    uint64_t n[CLASSES];
};

static FILE *out;
static bool counting;
static unsigned int counted_thread;
static struct counts now;

static uint32_t bits(uint32_t word, int high, int low) { return word >> low & ((1u << (high - low + 1)) - 1); }

/* Arm ARM, C4.1.95: data processing, scalar floating point and advanced SIMD. */
static enum class vector_class(uint32_t w)
{
    bool same = bits(w, 28, 24) == 0x0E && bits(w, 31, 31) == 0, element = bits(w, 28, 24) == 0x0F && bits(w, 31, 31) == 0;
    uint32_t opcode = bits(w, 15, 10), short_opcode = bits(w, 15, 12), size = bits(w, 23, 22);
    if (bits(w, 31, 24) == 0x1F)
        return FMA; /* FMADD and its kin */
    if (same && bits(w, 21, 21) == 0 && size == 2 && (opcode == 0x25 || opcode == 0x27))
        return DOT; /* SDOT, UDOT, USDOT */
    if (same && bits(w, 21, 21) == 0 && size == 2 && (opcode == 0x29 || opcode == 0x2B))
        return MATRIX; /* SMMLA, UMMLA, USMMLA */
    if (same && bits(w, 29, 29) == 0 && ((bits(w, 21, 21) && opcode == 0x33) || (!bits(w, 21, 21) && opcode == 0x03)))
        return FMA; /* FMLA, FMLS */
    if (same && bits(w, 21, 21) && bits(w, 11, 10) == 0 && (short_opcode == 8 || short_opcode == 10 || short_opcode == 12))
        return WIDEN; /* SMLAL, SMLSL, SMULL */
    if (element && bits(w, 10, 10) == 0) {
        if ((short_opcode == 0xE && size == 2) || (short_opcode == 0xF && bits(w, 29, 29) == 0))
            return DOT;
        if (bits(w, 29, 29) == 0 && size != 1 && (short_opcode == 1 || short_opcode == 5))
            return FMA;
        if (short_opcode == 2 || short_opcode == 6 || short_opcode == 10)
            return WIDEN;
    }
    return SIMD;
}

static enum class memory_class(uint32_t w)
{
    bool vector = bits(w, 26, 26), literal = bits(w, 29, 27) == 3 && !bits(w, 24, 24);
    bool one_register = bits(w, 29, 27) == 7;
    bool load = literal || (one_register && !vector ? bits(w, 23, 22) != 0 : bits(w, 22, 22));
    return vector ? (load ? VLOAD : VSTORE) : (load ? LOAD : STORE);
}

/* Arm ARM, C4.1: the main encoding table, by bits 28 to 25. */
static enum class class_of(uint32_t w)
{
    uint32_t op0 = bits(w, 28, 25);
    if ((op0 & 0xE) == 0x8 || (op0 & 0x7) == 0x5)
        return INT;
    if ((op0 & 0xE) == 0xA)
        return BRANCH;
    if ((op0 & 0x5) == 0x4)
        return memory_class(w);
    if ((op0 & 0x7) == 0x7)
        return vector_class(w);
    return op0 == 0x2 ? SVE : OTHER;
}

static void block_runs(unsigned int thread, void *block)
{
    if (!counting || thread != counted_thread)
        return;
    for (int i = 0; i < CLASSES; i++)
        now.n[i] += ((const struct counts *)block)->n[i];
}

static void block_is_translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    struct counts *block = calloc(1, sizeof *block); /* lives as long as the block, which is as long as the process */
    size_t n = qemu_plugin_tb_n_insns(tb);
    (void)id;
    if (!block)
        abort();
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
        block->n[class_of(word)]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, NO_REGISTERS, block);
}

static void system_call(plugin_id id, unsigned int thread, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != CLOSE)
        return;
    if ((uint32_t)a1 >> 16 == START) {
        memset(&now, 0, sizeof now);
        counted_thread = thread;
        counting = true;
    } else if ((uint32_t)a1 >> 16 == STOP && counting && thread == counted_thread) {
        counting = false;
        fprintf(out, "%u", (unsigned int)(a1 & 0xFFFF));
        for (int i = 0; i < CLASSES; i++)
            fprintf(out, " %" PRIu64, now.n[i]);
        fprintf(out, "\n");
        fflush(out);
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "a");
    if (!out) {
        fprintf(stderr, "count: out=FILE is missing, or the file cannot be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
