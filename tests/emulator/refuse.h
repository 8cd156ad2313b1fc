/* refuse.h - products that the emulator's cublasLt says it cannot do, as some version on some GPU may.
 *
 * Who may call: tests/gpu (through cuda_rig.h); C and C++. */
#ifndef BLIPLINE_TESTS_EMULATOR_REFUSE_H
#define BLIPLINE_TESTS_EMULATOR_REFUSE_H

enum emulator_refuse {
    EMULATOR_REFUSE_ACT = 1,        /* relu and gelu */
    EMULATOR_REFUSE_BIAS = 2,       /* any epilogue with a bias */
    EMULATOR_REFUSE_ROW_SCALES = 4, /* e4m3 with a scale for each row */
    EMULATOR_REFUSE_ALL = 8,
    EMULATOR_REFUSE_OTHER_ROWS = 16, /* an algorithm with another count of rows than it was asked for with */
    EMULATOR_REFUSE_FAST_SUMS = 32,  /* e4m3 with CUBLASLT_MATMUL_DESC_FAST_ACCUM */
    EMULATOR_REFUSE_CAPTURED = 64,   /* to be captured: an internal error */
};

#endif
