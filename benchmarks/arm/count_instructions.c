/* Counts the instructions that an emulated aarch64 program executes, by kind: a plug-in for QEMU's user emulation.
 *
 *     qemu-aarch64 -plugin file=libcount.so,out=FILE PROGRAM
 *
 * The program sets a mark with prctl(MARK, number): the plug-in then writes a line with the number, the threads started
 * so far and every count so far. Counts are exact for one thread; several would race for the counters.
 * Kinds are told by opcode masks of the Arm Architecture Reference Manual (DDI 0487, C4.1). Debian ships no qemu-plugin.h,
 * so what is used of version 1 of its interface (docs.qemu.org, "QEMU TCG Plugins") is declared here. */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 0x65646765 /* "edge": an option that prctl does not have */
#define PRCTL 167

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*on_block)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_thread)(plugin_id, unsigned int);
typedef void (*on_call)(plugin_id, unsigned int, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_block);
void qemu_plugin_register_vcpu_init_cb(plugin_id, on_thread);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_call);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
EXPORT int qemu_plugin_version = 1;

enum kind { ALL, MEMORY, VECTOR, FMA, HALF_FMA, DOT, MATRIX, KINDS };
static struct {
    enum kind kind;
    uint32_t mask, value;
} const table[] = {
    {ALL, 0, 0},
    {MEMORY, 0x0A000000, 0x08000000},   /* loads and stores */
    {VECTOR, 0x0E000000, 0x0E000000},   /* floating point and SIMD, loads and stores apart */
    {FMA, 0xBFA0FC00, 0x0E20CC00},      /* FMLA of vectors, float32 and float64 */
    {FMA, 0xBF80F400, 0x0F801000},      /* ... by an element */
    {HALF_FMA, 0xBFE0FC00, 0x0E400C00}, /* FMLA of vectors, float16 */
    {HALF_FMA, 0xBFC0F400, 0x0F001000}, /* ... by an element */
    {DOT, 0x9FE0FC00, 0x0E809400},      /* SDOT, UDOT of vectors */
    {DOT, 0x9FC0F400, 0x0F80E000},      /* ... by an element */
    {DOT, 0xBFE0FC00, 0x0E809C00},      /* USDOT of vectors */
    {DOT, 0xBF40F400, 0x0F00F000},      /* USDOT, SUDOT by an element */
    {MATRIX, 0xDFE0FC00, 0x4E80A400},   /* SMMLA, UMMLA */
    {MATRIX, 0xFFE0FC00, 0x4E80AC00},   /* USMMLA */
};
static uint64_t counts[KINDS], threads;
static FILE *out;

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    uint64_t found[KINDS] = {0};
    size_t length = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < length; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        for (size_t row = 0; row < sizeof table / sizeof *table; row++)
            found[table[row].kind] += (word & table[row].mask) == table[row].value;
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (found[kind])
            qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[kind], found[kind]);
}

static void started(plugin_id id, unsigned int thread)
{
    (void)id, (void)thread;
    __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
}

static void called(plugin_id id, unsigned int thread, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)thread, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != PRCTL || a1 != MARK)
        return;
    fprintf(out, "%" PRIu64 " %" PRIu64, a2, threads);
    for (int kind = 0; kind < KINDS; kind++)
        fprintf(out, " %" PRIu64, counts[kind]);
    fputc('\n', out);
    fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    if (out == NULL) {
        fputs("count_instructions: name a file that can be written, as out=FILE\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_init_cb(id, started);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
