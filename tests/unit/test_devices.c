#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local/devices.h"
#include "local/place.h"

#define UUID_0 "GPU-0a1b2c3d-0000-1111-2222-333344445555"
#define UUID_1 "GPU-9f8e7d6c-0000-1111-2222-333344445555"

/* A machine in a folder of its own. */
static char root[] = "/tmp/bl-devices-XXXXXX";
static char driver[64], cpuinfo[64], host[64], programs[64], pipe_dir[64];
static struct devices_places places;
static struct devices have;
static struct device_choice choice;

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void make_gpu(const char *bus, const char *uuid, const char *excluded)
{
    char dir[160], path[200], text[512];

    (void)snprintf(dir, sizeof(dir), "%s/gpus", driver);
    (void)mkdir(dir, 0700);
    (void)snprintf(dir, sizeof(dir), "%s/gpus/%s", driver, bus);
    assert_int_equal(mkdir(dir, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/information", dir);
    (void)snprintf(
        text, sizeof(text),
        "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t %s\nVideo BIOS: \t 96.00\nBus Type: \t "
        "PCIe\nBus Location: \t %s\nDevice Minor: \t 0\nGPU Firmware: \t 550.54.15\nGPU Excluded:\t %s\n",
        uuid, bus, excluded);
    write_file(path, text);
}

static void make_library(const char *dir)
{
    char path[200];

    (void)snprintf(path, sizeof(path), "%s/libblipline-cuda.so", dir);
    write_file(path, "");
}

static int set_up(void **state)
{
    (void)state;
    memcpy(root + sizeof(root) - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(root));
    (void)snprintf(driver, sizeof(driver), "%s/driver", root);
    (void)snprintf(cpuinfo, sizeof(cpuinfo), "%s/cpuinfo", root);
    (void)snprintf(host, sizeof(host), "%s/dxg", root);
    (void)snprintf(programs, sizeof(programs), "%s/bin", root);
    (void)snprintf(pipe_dir, sizeof(pipe_dir), "%s/mps", root);
    assert_int_equal(mkdir(driver, 0700) | mkdir(programs, 0700) | mkdir(pipe_dir, 0700), 0);
    write_file(cpuinfo, "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu avx2 avx512f avx512_bf16 x\n");
    places = (struct devices_places){
        .driver = driver, .cpuinfo = cpuinfo, .host = host, .program_dir = programs, .mps_pipe_dir = pipe_dir};
    return 0;
}

static int tear_down(void **state)
{
    char command[96];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -r %s", root);
    return system(command);
}

static void make_two_gpus(void)
{
    char path[96];

    make_gpu("0000:81:00.0", UUID_1, "No");
    make_gpu("0000:0f:00.0", UUID_0, "No");
    (void)snprintf(path, sizeof(path), "%s/version", driver);
    write_file(path,
               "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:"
               "  gcc version 12.2.0\n");
}

static int choose(const char *list, struct err *err)
{
    err->text[0] = '\0';
    memset(&choice, 0x55, sizeof(choice));
    devices_find_at(&places, &have);
    return devices_choose(&have, list, places.library, &choice, err);
}

static void chosen(const char *list, enum device_kind kind, int n, const char *first)
{
    struct err err;

    if (choose(list, &err) < 0)
        fail_msg("%s: %s", list, err.text);
    assert_int_equal(choice.kind, kind);
    assert_int_equal(choice.n, n);
    assert_string_equal(choice.names[0], first);
}

static void refused(const char *list, int code, const char *says)
{
    struct err err;

    assert_int_equal(choose(list, &err), code);
    assert_int_equal(choice.n, 0x55555555); /* nothing was changed */
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void test_devices_are_read_in_the_order_of_the_bus(void **state)
{
    char fifo[96];

    (void)state;
    make_two_gpus();
    make_gpu("0000:01:00.0", "GPU-dddddddd-0000-1111-2222-333344445555", "Yes"); /* taken out by the operator */
    devices_find_at(&places, &have);
    assert_int_equal(have.n_gpus, 2);
    assert_string_equal(have.gpus[0].uuid, UUID_0);
    assert_string_equal(have.gpus[0].bus, "0000:0f:00.0");
    assert_string_equal(have.gpus[1].uuid, UUID_1);
    assert_string_equal(have.gpus[1].model, "NVIDIA H100 80GB HBM3");
    assert_string_equal(have.driver, "550.54.15");
    assert_string_equal(have.cpu, "AMD EPYC 9R14");
    assert_string_equal(have.isa, "avx2 avx512 avx512_bf16");
    assert_int_equal(have.n_visible, -1);
    assert_true(have.n_threads >= 1 && !have.has_mps && !have.library[0] && !have.is_elsewhere);
    (void)snprintf(fifo, sizeof(fifo), "%s/control", pipe_dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    devices_find_at(&places, &have);
    assert_true(have.has_mps);
}

static void test_devices_that_are_not_there_are_none(void **state)
{
    (void)state;
    places.driver = places.cpuinfo = places.program_dir = places.mps_pipe_dir = "/nonexistent";
    devices_find_at(&places, &have);
    assert_true(have.n_gpus == 0 && !have.driver[0] && !have.library[0] && !have.has_mps && !have.cpu[0]);
    chosen("auto", DEVICE_CPU, 1, "cpu");
    assert_string_equal(choice.note, ""); /* nobody expects a GPU */
}

static void test_devices_auto_is_every_gpu_else_the_cpu_with_the_reason(void **state)
{
    (void)state;
    make_library(programs);
    chosen("auto", DEVICE_CPU, 1, "cpu");
    assert_non_null(strstr(choice.note, "there is no GPU here"));
    make_two_gpus();
    chosen("auto", DEVICE_CUDA, 2, UUID_0);
    assert_string_equal(choice.names[1], UUID_1);
    assert_string_equal(choice.note, "");
    assert_string_equal(choice.library, ""); /* the workers find it themselves */
    places.visible = "1";
    chosen("auto", DEVICE_CUDA, 1, "cuda:0"); /* which of them, CUDA knows */
    places.visible = "";
    chosen("auto", DEVICE_CPU, 1, "cpu");
    assert_non_null(strstr(choice.note, "CUDA_VISIBLE_DEVICES hides every GPU"));
    places.visible = "1,-1,0"; /* CUDA stops at what is none */
    chosen("auto", DEVICE_CUDA, 1, "cuda:0");
    places.visible = UUID_1 "," UUID_0;
    chosen("auto", DEVICE_CUDA, 2, "cuda:0");
    places.visible = NULL;
    places.library = "/nonexistent/lib.so";
    chosen("auto", DEVICE_CPU, 1, "cpu");
    assert_non_null(
        strstr(choice.note, "2 GPUs (NVIDIA H100 80GB HBM3), but no libblipline-cuda.so /nonexistent/lib.so"));
}

static void test_devices_asleep_have_no_uuid_but_a_number(void **state)
{
    (void)state;
    make_library(programs);
    make_gpu("0000:0f:00.0", "GPU-\?\?\?\?\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?\?\?\?\?\?\?\?\?", "No");
    chosen("auto", DEVICE_CUDA, 1, "cuda:0");
    chosen(UUID_0, DEVICE_CUDA, 1, UUID_0); /* it may be the one */
}

static void test_devices_library_is_beside_the_programs_or_in_lib(void **state)
{
    char lib[96], path[160];

    (void)state;
    make_two_gpus();
    (void)snprintf(lib, sizeof(lib), "%s/lib", root);
    (void)snprintf(path, sizeof(path), "%s/lib/blipline", root);
    assert_int_equal(mkdir(lib, 0700) | mkdir(path, 0700), 0);
    make_library(path);
    chosen("auto", DEVICE_CUDA, 2, UUID_0);
    assert_non_null(strstr(have.library, "/../lib/blipline/libblipline-cuda.so"));
    make_library(programs);
    chosen("auto", DEVICE_CUDA, 2, UUID_0);
    assert_null(strstr(have.library, "/lib/"));
}

static void test_devices_wrong_lists_say_what_is_wrong(void **state)
{
    (void)state;
    refused("cuda:0", -ENOTSUP, "no CUDA operators");
    make_library(programs);
    refused("cuda:0", -ENODEV, "no GPU here");
    refused("cuda", -EDOM, "not a device");
    refused("", -EDOM, "not a device");
    refused("cuda:", -EDOM, "not a device");
    refused("cuda:1x", -EDOM, "not a device");
    refused("cuda:-1", -EDOM, "not a device");
    refused("cpu,cuda:0", -EDOM, "not a device");
    refused("auto,cpu", -EDOM, "not a device");
    refused("GPU-; rm", -EDOM, "not a device");
    refused("cuda:0,", -EDOM, "not a device");
    refused("cuda:0,cuda:0", -EDOM, "cuda:0 twice");
    make_two_gpus();
    refused("cuda:2", -ENODEV, "this machine has 2 GPUs");
    refused("cuda:0,cuda:2", -ENODEV, "cuda:2");
    refused("GPU-00000000-0000-1111-2222-333344445555", -ENODEV, "no such GPU");
    places.visible = "0";
    refused("cuda:1", -ENODEV, "CUDA_VISIBLE_DEVICES shows 1 GPU,");
    places.visible = NULL;
    chosen("cuda:1,cuda:0", DEVICE_CUDA, 2, "cuda:1");
    chosen(UUID_1, DEVICE_CUDA, 1, UUID_1);
    chosen("cpu", DEVICE_CPU, 1, "cpu");
    chosen("null", DEVICE_NULL, 1, "null");
}

static void test_devices_given_library_is_believed(void **state)
{
    (void)state;
    places.library = "/nonexistent/lib.so";
    refused("cuda:0", -ENOTSUP, "/nonexistent/lib.so");
    places.library = cpuinfo; /* any file */
    chosen("cuda:7", DEVICE_CUDA, 1, "cuda:7");
    assert_string_equal(choice.library, cpuinfo);
    places.library = NULL;
    make_library(programs);
    write_file(host, ""); /* the driver is the host's */
    chosen("cuda:0", DEVICE_CUDA, 1, "cuda:0");
}

/* -- placement -- */

static struct plan plan = {.n_workers = 3,
                           .workers = {{.name = "encoder", .stage = STAGE_ENCODE, .gflop = 500, .bytes = 4e9},
                                       {.name = "qformer", .stage = STAGE_QFORMER, .gflop = 13, .bytes = 1e9},
                                       {.name = "llm", .stage = STAGE_LLM, .gflop = 900, .bytes = 15e9}}};
static struct placement placement;

static double sum_of_shares(const char *device)
{
    double sum = 0;

    for (int i = 0; i < placement.n; i++)
        if (strcmp(placement.list[i].device, device) == 0)
            sum += placement.list[i].memory_share;
    return sum;
}

static void test_place_every_card_runs_all_stages(void **state)
{
    struct device_choice two = {.kind = DEVICE_CUDA, .n = 2, .names = {"cuda:0", UUID_1}};

    (void)state;
    place_workers(&plan, &two, 64, &placement);
    assert_int_equal(placement.n, 6);
    for (int i = 0; i < 6; i++) {
        const struct place *at = &placement.list[i];
        char name[32];

        (void)snprintf(name, sizeof(name), "%s-%d", plan.workers[i % 3].name, i / 3);
        assert_string_equal(at->name, name);
        assert_string_equal(at->device, i < 3 ? "cuda:0" : UUID_1);
        assert_ptr_equal(at->worker, &plan.workers[i % 3]);
        assert_int_equal(at->n_threads, 8);
        assert_int_equal(at->n_decode_threads, (64 - 7) / 2);
    }
    assert_true(sum_of_shares("cuda:0") > 0.899 && sum_of_shares(UUID_1) < 0.901);
    assert_true(placement.list[2].memory_share > 3 * placement.list[0].memory_share);
}

static void test_place_memory_goes_by_need_with_a_least_share(void **state)
{
    struct device_choice one = {.kind = DEVICE_CUDA, .n = 1, .names = {"cuda:0"}};
    struct plan p = plan;

    (void)state;
    p.workers[1].bytes = 1e6;
    place_workers(&p, &one, 2, &placement);
    assert_string_equal(placement.list[0].name, "encoder");
    assert_true(placement.list[1].memory_share == PLACE_LEAST_SHARE);
    assert_true(sum_of_shares("cuda:0") > 0.899 && sum_of_shares("cuda:0") < 0.901);
    for (int i = 0; i < 3; i++)
        assert_true(placement.list[i].n_threads == 1 && placement.list[i].n_decode_threads == 1);
    p.n_workers = 1;
    place_workers(&p, &one, 2, &placement);
    assert_true(placement.n == 1 && placement.list[0].memory_share > 0.899);
}

static void test_place_threads_of_the_cpu_go_by_work(void **state)
{
    struct device_choice cpu = {.kind = DEVICE_CPU, .n = 1, .names = {"cpu"}};

    (void)state;
    place_workers(&plan, &cpu, 16, &placement);
    assert_int_equal(placement.n, 3);
    assert_int_equal(placement.list[0].n_threads, 11); /* 2 * 500 / 1413 of them */
    assert_int_equal(placement.list[0].n_decode_threads, 5);
    assert_int_equal(placement.list[1].n_threads, 1);
    assert_int_equal(placement.list[2].n_threads, 16);
    assert_true(placement.list[0].memory_share == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_devices_are_read_in_the_order_of_the_bus, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_that_are_not_there_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_auto_is_every_gpu_else_the_cpu_with_the_reason, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_asleep_have_no_uuid_but_a_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_library_is_beside_the_programs_or_in_lib, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_wrong_lists_say_what_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_given_library_is_believed, set_up, tear_down),
        cmocka_unit_test(test_place_every_card_runs_all_stages),
        cmocka_unit_test(test_place_memory_goes_by_need_with_a_least_share),
        cmocka_unit_test(test_place_threads_of_the_cpu_go_by_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
