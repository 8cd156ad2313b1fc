/* context.h - from one stack to another, without the system calls of swapcontext.
 *
 * Who may call: block.cc. Memory: stacks are the caller's. */
#ifndef BLIPLINE_TESTS_EMULATOR_CONTEXT_H
#define BLIPLINE_TESTS_EMULATOR_CONTEXT_H

#include <stdint.h>

#if defined(__x86_64__)

/* Keep this stack in *save and go on where `to` was kept. */
extern "C" void context_switch(void **save, void *to);

asm(".text\n"
    ".p2align 4\n"
    ".hidden context_switch\n"
    ".globl context_switch\n"
    ".type context_switch, @function\n"
    "context_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n" /* mostly to where the processor expects it: threads wait for one another at the same place */
    ".size context_switch, .-context_switch\n");

/* Keep this stack in *save and call `entry`, which never returns, on the stack that ends at `top`. */
static inline void context_start(void **save, unsigned char *top, void (*entry)(void))
{
    uint64_t *sp = (uint64_t *)((uintptr_t)top & ~(uintptr_t)63);

    *--sp = 0; /* as if called from nowhere: at entry sp is 8 more than a multiple of 16 */
    *--sp = (uint64_t)(uintptr_t)entry;
    for (int i = 0; i < 6; i++)
        *--sp = 0;
    context_switch(save, sp);
}

#else

#include <ucontext.h>

/* The same by the C library, slower: a stack pointer is the address of a ucontext_t on its own stack. */
static inline void context_switch(void **save, void *to)
{
    ucontext_t here;

    *save = &here;
    swapcontext(&here, (ucontext_t *)to);
}
static inline void context_start(void **save, unsigned char *top, void (*entry)(void))
{
    ucontext_t here, *there = (ucontext_t *)(((uintptr_t)top - sizeof(ucontext_t)) & ~(uintptr_t)63);

    getcontext(there);
    there->uc_stack.ss_sp = (unsigned char *)there - 64 * 1024;
    there->uc_stack.ss_size = 64 * 1024;
    there->uc_link = NULL;
    makecontext(there, entry, 0);
    *save = &here;
    swapcontext(&here, there);
}

#endif

#endif
