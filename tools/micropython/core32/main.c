// Reads a program from standard input and runs it: count [BYTES OF HEAP] < program.py

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "py/compile.h"
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/runtime.h"

static char heap[4 << 20];
static char source[1 << 20];
static char *stack_top;

void gc_collect(void) {
    jmp_buf registers;
    setjmp(registers);
    char *stack = (char *)&registers;
    gc_collect_start();
    gc_collect_root((void **)stack, (stack_top - stack) / sizeof(void *));
    gc_collect_end();
}

mp_lexer_t *mp_lexer_new_from_file(qstr filename) {
    mp_raise_OSError(MP_ENOENT);
}

void nlr_jump_fail(void *value) {
    abort();
}

void mp_hal_stdout_tx_strn_cooked(const char *text, size_t size) {
    fwrite(text, 1, size, stdout);
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size) {
    fwrite(text, 1, size, stdout);
    return size;
}

int main(int count, char **arguments) {
    int here;
    stack_top = (char *)&here;
    size_t size = count > 1 ? strtoul(arguments[1], NULL, 10) : sizeof(heap);
    size_t read = fread(source, 1, sizeof(source) - 1, stdin);
    if (size > sizeof(heap)) {
        return 2;
    }
    gc_init(heap, heap + size);
    mp_init();
    nlr_buf_t nlr;
    if (nlr_push(&nlr) != 0) {
        mp_obj_print_exception(&mp_plat_print, (mp_obj_t)nlr.ret_val);
        return 1;
    }
    mp_lexer_t *lexer = mp_lexer_new_from_str_len(MP_QSTR__lt_stdin_gt_, source, read, 0);
    mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
    mp_call_function_0(mp_compile(&tree, MP_QSTR__lt_stdin_gt_, false));
    nlr_pop();
    return 0;
}
