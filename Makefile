# Blipline. `make demo` and `make test` are the two commands; `make help` lists the rest.
#
# Knobs:  CUDA=0|1   build the CUDA operators (default: 1 where nvcc is on PATH)
#         SAN=       address | undefined | thread: build into build/<SAN>/ with that sanitizer
#         T=         run only the unit or e2e tests whose name contains this
#         V=1        show every command       PYTHON=  python3 used by tests and tools

CUDA   ?= $(if $(shell command -v nvcc 2>/dev/null),1,0)
SAN    ?=
COV    ?= 0
T      ?=
V      ?= 0
TIME   ?= 30
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
CC     := gcc

Q := $(if $(filter 1,$(V)),,@)
ifeq ($(MAKELEVEL)$(findstring j,$(firstword -$(MAKEFLAGS))),0)
MAKEFLAGS += -j$(shell nproc)
endif
O := build$(if $(SAN),/$(SAN))$(if $(filter 1,$(COV)),/coverage)

ifneq ($(filter build demo test,$(or $(MAKECMDGOALS),build)),)
ifeq ($(MAKELEVEL)$(wildcard $(O)/blipline),0)
$(info building into $(O): some minutes the first time (V=1 shows the commands))
endif
endif

# -- first contact: install what is missing before anything is built ------------------------------------------------------------------
ifeq ($(filter help clean uninstall format format-check check-layers install-deps,$(MAKECMDGOALS)),)
ifneq ($(shell sh ops/install-deps.sh --check >/dev/null 2>&1 && echo yes),yes)
ifneq ($(shell sh ops/install-deps.sh 1>&2; echo $$?),0)
$(error packages are missing, see the line above)
endif
endif
endif

override CFLAGS += -std=gnu11 -O3 -g -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wshadow -I. -I$(O)/gen \
                   -D_GNU_SOURCE -fno-math-errno -fno-trapping-math -pthread
override LDFLAGS += -pthread -Wl,--as-needed
ifneq ($(SAN),)
override CFLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -O1
override LDFLAGS += -fsanitize=$(SAN)
ifeq ($(SAN),undefined)
override CFLAGS += -fno-sanitize-recover=undefined
endif
endif
ifeq ($(COV),1)
override CFLAGS += --coverage -O0
override LDFLAGS += --coverage
endif

CFLAGS_encoder_worker_resize := -ffp-contract=off # its weights are Pillow's to the bit, on processors with fused multiply-add too

objects = $(patsubst %.c,$(O)/%.o,$(1))

BASE    := $(wildcard base/*.c)
PROTOS  := $(wildcard proto/*.proto)
PROTOGEN := $(PROTOS:%.proto=$(O)/gen/%.pb-c.c)
PROTO   := $(wildcard proto/*.c)
RECIPES := $(wildcard ops/recipes/*.conf)
RECIPE_TEXTS := $(O)/gen/recipe/recipe_texts.h
HELP := $(wildcard client/help/*.txt)
HELP_TEXTS := $(O)/gen/client/help_texts.h
WIRE    := $(wildcard wire/*.c)
STORE   := $(wildcard store/*.c)
SOURCE  := $(wildcard source/*.c)
TENSOR_CPU := $(wildcard tensor/cpu*.c)
TENSOR_BASE := tensor/tensor.c tensor/cpu_isa.c
TENSOR  := $(filter-out $(TENSOR_CPU),$(wildcard tensor/*.c))
MODEL   := $(wildcard model/*.c)
WORKER  := $(wildcard worker/*.c)
COMMAND_DIRS := console recipe local job client client/export client/selftest
COMMAND := $(wildcard $(COMMAND_DIRS:%=%/*.c))

PROTO_O := $(call objects,$(PROTO)) $(PROTOGEN:.c=.o)
# vectors of 64 bytes only travel between inlined functions, whatever gcc says about passing them
$(call objects,$(TENSOR_CPU)) $(TENSOR_CPU:%.c=$(O)/pic/%.o): override CFLAGS += -fopenmp -Wno-psabi

# what each program is made of; broker and command link neither oneDNN nor CUDA
BROKER_O  := $(call objects,$(BASE) $(WIRE) $(STORE) $(wildcard broker/*.c)) $(PROTO_O)
ENCODER_O := $(call objects,$(BASE) $(WIRE) $(SOURCE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(WORKER) $(wildcard encoder_worker/*.c)) $(PROTO_O)
QFORMER_O := $(call objects,$(BASE) $(WIRE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(WORKER) $(wildcard qformer_worker/*.c)) $(PROTO_O)
LLM_O     := $(call objects,$(BASE) $(WIRE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(WORKER) $(wildcard llm_worker/*.c)) $(PROTO_O)
CLIENT_O  := $(call objects,$(BASE) $(WIRE) $(STORE) $(SOURCE) $(TENSOR_BASE) $(MODEL) $(COMMAND)) $(PROTO_O)

BASE_L    := -linih
SOURCE_L  := -lyajl -lutf8proc
WIRE_L    := -lzmq -lprotobuf-c -lz -lxxhash -lsodium
STORE_L   := -llmdb -lz
MODEL_L   := -ljansson -lpcre2-8 -lutf8proc -lxxhash -lm
TENSOR_L  := -ldnnl -lgomp -lm -ldl
CODEC_L   := -ljpeg -lspng -lwebpdemux -lwebp -lz -lseccomp
DAEMON_L  := -lsystemd

BINARIES := $(addprefix $(O)/,blipline blipline-broker blipline-encoder blipline-qformer blipline-llm)

# The CUDA operators are a shared object that a worker loads for device = cuda:N. Its few C files are compiled once more, as position-independent
# code. sm_90a where the architecture's own instructions help, PTX of 9.0 for what comes later.
NVCC      := nvcc
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC) 2>/dev/null)))
CUDA_SRC  := $(wildcard tensor/cuda/*.cu)
CUDA_PIC  := $(patsubst %.c,$(O)/pic/%.o,base/dtype.c base/err.c tensor/tensor.c tensor/weight_parts.c tensor/cuda/abi.c)
CUDA_SO   := $(if $(filter 1,$(CUDA)),$(O)/libblipline-cuda.so)
CUDA_ARCH := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_89,code=sm_89 -gencode arch=compute_90a,code=sm_90a \
             -gencode arch=compute_90,code=compute_90
NVCCFLAGS := -std=c++17 -O3 -lineinfo -I. $(CUDA_ARCH) -Xcompiler -fPIC,-Wall,-Wextra,-Werror,-fvisibility=hidden

.DEFAULT_GOAL := build
.SECONDARY:
.DELETE_ON_ERROR:

build: $(BINARIES) $(CUDA_SO) ## build the five programs, and the CUDA operators where there is a toolkit

$(O)/blipline-broker: $(BROKER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(STORE_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-encoder: $(ENCODER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(SOURCE_L) $(CODEC_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-qformer: $(QFORMER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-llm: $(LLM_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline: $(CLIENT_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(STORE_L) $(MODEL_L) $(SOURCE_L) $(BASE_L)

$(O)/libblipline-cuda.so: $(CUDA_SRC:%.cu=$(O)/%.o) $(CUDA_PIC)
	$(Q)$(NVCC) -shared -o $@ $^ -L$(CUDA_HOME)/lib64 -lcublasLt -Xlinker -rpath,$(CUDA_HOME)/lib64,-z,defs
$(O)/tensor/cuda/%.o: tensor/cuda/%.cu
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<
# so that a program and the operators of another build are not put together
DEVICE_ABI := $(O)/gen/tensor/device_abi.h
$(DEVICE_ABI): tensor/ops.h tensor/tensor.h tensor/device.h base/dtype.h base/err.h
	@mkdir -p $(@D)
	$(Q)cat $^ | cksum | sed 's/\([0-9]*\).*/#define DEVICE_ABI \1u/' > $@
$(O)/tensor/device.o $(O)/pic/tensor/cuda/abi.o: $(DEVICE_ABI)
# without sanitizers and coverage: those need what only programs are linked with
$(O)/pic/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out --coverage -fsanitize% -fno-sanitize%,$(CFLAGS)) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(O)/gen/%.pb-c.c $(O)/gen/%.pb-c.h: %.proto
	@mkdir -p $(@D)
	$(Q)protoc --plugin=protoc-gen-c=$$(command -v protoc-gen-c || command -v protoc-c) --c_out=$(O)/gen $<

$(RECIPE_TEXTS): $(RECIPES) ops/recipes/to-table.awk
	@mkdir -p $(@D)
	$(Q)awk -f ops/recipes/to-table.awk $(RECIPES) > $@

$(HELP_TEXTS): $(HELP) client/help/to-header.awk
	@mkdir -p $(@D)
	$(Q)awk -f client/help/to-header.awk $(HELP) > $@

$(O)/gen/%.o: $(O)/gen/%.c
	$(Q)$(CC) $(filter-out -Wmissing-prototypes -Wshadow,$(CFLAGS)) -MMD -MP -c -o $@ $<

$(O)/%.o: %.c | $(PROTOGEN) $(RECIPE_TEXTS) $(HELP_TEXTS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(CFLAGS_$(subst /,_,$*)) -MMD -MP -c -o $@ $<

-include $(shell find $(O) -name '*.d' 2>/dev/null)

# -- tests ---------------------------------------------------------------------------------------------------------------------------
# A unit test tests/unit/test_X.c is linked with everything but the daemons' main.c, and with the helpers beside it (tests/unit/*.c that are no test_*.c).
LIB_SRC := $(BASE) $(PROTO) $(WIRE) $(STORE) $(SOURCE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(WORKER) \
           $(filter-out %/main.c,$(wildcard encoder_worker/*.c qformer_worker/*.c llm_worker/*.c broker/*.c) $(COMMAND))
LIB_A   := $(O)/libblipline-all.a
$(LIB_A): $(call objects,$(LIB_SRC)) $(PROTOGEN:.c=.o)
	$(Q)rm -f $@ && ar rcs $@ $^
ALL_L   := $(WIRE_L) $(STORE_L) $(MODEL_L) $(SOURCE_L) $(CODEC_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)

UNIT_TESTS  := $(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(wildcard tests/unit/test_*$(T)*.c))
E2E_TESTS   := tests/e2e
ifeq ($(SAN),thread)
# ThreadSanitizer cannot see how libgomp's threads wait for one another: each OpenMP loop would be a race to it. So what computes is left
# out, and the end-to-end tests are those of null workers, which pass real messages through real daemons.
TSAN_TESTS  := base broker_socket client_session committer core core_jobs core_table cpu_pool decode feed msg pool progress reader recipe row source spawn \
               store stored table template wire_message worker_session
UNIT_TESTS  := $(filter $(TSAN_TESTS:%=$(O)/tests/unit/test_%),$(UNIT_TESTS))
E2E_TESTS   := tests/e2e/test_foreign.py
endif
UNIT_SHARED := $(call objects,$(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c)))
$(O)/tests/unit/test_%: $(O)/tests/unit/test_%.o $(UNIT_SHARED) $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(UNIT_SHARED) $(LIB_A) $(ALL_L) -lcmocka

SIMULATE := $(O)/tests/simulate/simulate
$(SIMULATE): $(call objects,$(wildcard tests/simulate/*.c)) $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB_A) $(ALL_L)

DECODE_RGB := $(O)/tests/zoo/decode_rgb
$(DECODE_RGB): $(O)/tests/zoo/decode_rgb.o $(O)/tests/unit/verdict.o $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(ALL_L)
zoo: $(DECODE_RGB) ## hold the picture decoders against Pillow 12.3, which PYTHON= must have (ARGS="--mutations 10000")
	$(Q)$(PYTHON) tests/zoo/zoo.py compare $(DECODE_RGB) $(ARGS)

$(O)/tests/bench/fma_peak.o: override CFLAGS += -fopenmp
BENCHES := $(filter-out %/bench_real %/bench_gpu,$(patsubst tests/bench/%.c,$(O)/tests/bench/%,$(wildcard tests/bench/bench_*.c)))
BENCH_SHARED := $(call objects,$(filter-out tests/bench/bench_%,$(wildcard tests/bench/*.c)))
$(O)/tests/bench/bench_%: $(O)/tests/bench/bench_%.o $(BENCH_SHARED) $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(BENCH_SHARED) $(LIB_A) $(ALL_L)

test: ## everything: unit and golden tests, the CUDA kernels in the emulator, simulator, end to end with the real daemons
	$(Q)$(MAKE) --no-print-directory build python-proto $(UNIT_TESTS) $(SIMULATE) $(if $(filter 1,$(CUDA)),$(GPU_TESTS) $(EMULATED_TESTS) $(EMULATED_SO))
	$(Q)$(MAKE) --no-print-directory test-unit
	$(Q)$(if $(filter 1,$(CUDA)),$(MAKE) --no-print-directory test-emulated,echo "test-emulated: skipped, no CUDA toolkit here")
	$(Q)$(MAKE) --no-print-directory simulate
	$(Q)$(MAKE) --no-print-directory test-e2e

# What runs at every level of the CPU's vector instructions (fixture_cpu_isa): models whose results must not depend on the batch.
LEVEL_TESTS := $(filter $(patsubst %,$(O)/tests/unit/test_%,demo_captions generate golden_decode golden_itm golden_opt golden_t5 lm lm_random qformer),$(UNIT_TESTS))
test-unit: $(UNIT_TESTS) ## unit and golden tests (T=name picks some)
	$(Q)sh tests/run-unit.sh $(UNIT_TESTS)
	$(Q)$(if $(LEVEL_TESTS),sh tests/levels.sh sh tests/run-unit.sh $(LEVEL_TESTS))

# The tests of the CUDA operators run on a GPU (test-gpu) and, the same programs, without one: tests/emulator runs the same kernels on the CPU.
GPU_TESTS   := $(patsubst tests/gpu/%.c,$(O)/tests/gpu/%,$(wildcard tests/gpu/test_*$(T)*.c))
GPU_SHARED  := $(call objects,$(filter-out tests/gpu/test_%,$(wildcard tests/gpu/*.c)))
$(O)/tests/gpu/test_%: $(O)/tests/gpu/test_%.o $(GPU_SHARED) $(UNIT_SHARED) $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(GPU_SHARED) $(UNIT_SHARED) $(LIB_A) $(ALL_L) -lcmocka

# -ftrivial-auto-var-init: registers that were not set hold nonsense
EMULATED_SO := $(O)/emulated/libblipline-cuda.so
EMULATOR_O  := $(patsubst %.cc,$(O)/emulated/%.o,$(filter-out tests/emulator/test_%,$(wildcard tests/emulator/*.cc)))
EMULATED_O  := $(CUDA_SRC:%.cu=$(O)/emulated/%.o) $(EMULATOR_O)
EMULATED_FLAGS := -std=c++17 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wno-unknown-pragmas \
                  -Itests/emulator -I. -isystem $(CUDA_HOME)/include
EMULATED_TESTS := $(patsubst tests/emulator/%.cc,$(O)/emulated/%,$(wildcard tests/emulator/test_*$(T)*.cc))
$(EMULATED_SO): $(EMULATED_O) $(CUDA_PIC)
	$(Q)g++ -shared -Wl,-z,defs -o $@ $^ -pthread
$(O)/emulated/test_%: $(O)/emulated/tests/emulator/test_%.o $(EMULATOR_O)
	$(Q)g++ -o $@ $^ -lcmocka -pthread
$(O)/emulated/tensor/cuda/%.o: tensor/cuda/%.cu
	@mkdir -p $(@D)
	$(Q)g++ $(EMULATED_FLAGS) -ftrivial-auto-var-init=pattern -MMD -MP -x c++ -c -o $@ $<
$(O)/emulated/tests/emulator/%.o: tests/emulator/%.cc
	@mkdir -p $(@D)
	$(Q)g++ $(EMULATED_FLAGS) -O3 -MMD -MP -c -o $@ $<

test-emulated: $(if $(filter 1,$(CUDA)),$(GPU_TESTS) $(EMULATED_TESTS) $(EMULATED_SO)) ## the CUDA operators' tests without a GPU: their kernels on the CPU (T=name picks some)
	$(Q)$(if $(filter 1,$(CUDA)),BLIPLINE_TEST_CUDA_LIBRARY=$(abspath $(EMULATED_SO)) sh tests/run-unit.sh $(EMULATED_TESTS) $(GPU_TESTS),echo "test-emulated: skipped, no CUDA toolkit here")

test-gpu: $(GPU_TESTS) $(CUDA_SO) ## the CUDA operators' tests on a GPU, which is cuda:0 (T=name picks some)
	$(Q)$(if $(filter 1,$(CUDA)),BLIPLINE_TEST_CUDA_LIBRARY=$(abspath $(CUDA_SO)) sh tests/run-unit.sh $(GPU_TESTS),echo "test-gpu: skipped, no CUDA toolkit here")

simulate: $(SIMULATE) ## the broker's core in a world of faults: 300 seeds, and each of the bugs of core_bugs.h planted
	$(Q)$(SIMULATE) --seeds 300

# Replaces the CUDA operators in end-to-end tests: a fake asynchronous device.
FAKE_ASYNC_SO := $(O)/tests/e2e/libfake_async.so
$(FAKE_ASYNC_SO): $(patsubst %.c,$(O)/pic/%.o,base/dtype.c base/err.c tensor/tensor.c tensor/host.c tensor/weight_parts.c tensor/sampler.c $(TENSOR_CPU) tests/unit/fake_async_ops.c tests/unit/fake_async_calls.c tests/e2e/fake_async_device.c tensor/cuda/abi.c)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -pthread -Wl,-z,defs -o $@ $^ -ldnnl -lgomp -lxxhash -lm

# Preloaded by daemons that are to be disturbed.
PRELOADS := $(addprefix $(O)/tests/e2e/lib,faulty_jpeg.so signal_storm.so)
$(PRELOADS): $(O)/tests/e2e/lib%.so: $(O)/pic/tests/e2e/%.o
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -pthread -o $@ $< -ldl

test-e2e: build python-proto $(FAKE_ASYNC_SO) $(PRELOADS) $(if $(filter 1,$(CUDA)),$(if $(SAN)$(filter 1,$(COV)),,$(EMULATED_SO))) ## the real daemons, with kill -9, bad pictures and clients nobody here wrote (T=name picks some)
	$(Q)O=$(abspath $(O)) SLOW_BUILD=$(SAN)$(filter 1,$(COV)) PYTHONPATH=$(abspath build/gen-python) \
	    sh -c '"$$@" && { [ -n "$(T)" ] || sh tests/levels.sh "$$@" -m every_level; }' e2e \
	    $(PYTHON) -m pytest -q -p no:cacheprovider $(E2E_TESTS) $(if $(T),-k '$(T)')

PYTHON_PROTO := $(PROTOS:proto/%.proto=build/gen-python/proto/%_pb2.py)
python-proto: $(PYTHON_PROTO) ## protobuf classes for Python in build/gen-python
build/gen-python/proto/%_pb2.py: proto/%.proto
	@mkdir -p build/gen-python
	$(Q)protoc --python_out=build/gen-python $<

bench-ops: $(O)/tests/bench/bench_ops ## measure the operators beside bare products
	$(Q)OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=10000 $<
bench: build $(BENCHES) ## measure: operators, stages, core, store, wire, the whole chain
	$(Q)O=$(O) sh tests/bench/run.sh $(BENCHES)
bench-real: $(O)/tests/bench/bench_real ## measure checkpoints of published size, written below /tmp for the time (ARGS="--presets opt-2.7b --scale 4")
	$(Q)O=$(O) $(PYTHON) tests/bench/real_size.py $(ARGS)

GPU_CHECK_PROGRAMS := $(GPU_TESTS) $(O)/tests/bench/bench_gpu
gpu-check-programs: build $(GPU_CHECK_PROGRAMS) ## what ops/gpu-check.sh packs for a machine with a GPU
bench-gpu: build $(GPU_CHECK_PROGRAMS) ## measure a GPU's stages, transformers in turn with them, and the whole chain (ARGS="--seconds 2 --only bench")
	$(Q)O=$(abspath $(O)) PYTHON=$(PYTHON) sh ops/gpu-check.sh run $(O)/gpu --only machine,hf,bench,chain --seconds 10 $(ARGS)

demo: build python-proto ## caption the example pictures with the demo model
	$(Q)O=$(O) PYTHON=$(PYTHON) sh examples/demo.sh

# -- care ----------------------------------------------------------------------------------------------------------------------------
C_FILES := $(wildcard base/*.[ch] proto/*.[ch] wire/*.[ch] store/*.[ch] source/*.[ch] tensor/*.[ch] model/*.[ch] worker/*.[ch] encoder_worker/*.[ch] \
             qformer_worker/*.[ch] llm_worker/*.[ch] broker/*.[ch] $(COMMAND_DIRS:%=%/*.[ch]) $(filter-out tests/emulator/%,$(wildcard tests/*/*.[ch])))
CUDA_FILES := $(wildcard tensor/cuda/*.cu tensor/cuda/*.cuh tensor/cuda/*.h tests/emulator/*.cc tests/emulator/*.h tests/emulator/*/*/*.cuh)

format: ## clang-format in place
	$(Q)clang-format -i $(C_FILES) $(CUDA_FILES)
format-check: ## exit 1 where clang-format would change something
	$(Q)clang-format --dry-run -Werror $(C_FILES) $(CUDA_FILES)
check-layers: ## who includes and links whom: the layers, and one owner for each library
	$(Q)$(PYTHON) ops/lint/layers.py
check-headers: $(PROTOGEN) ## every header compiles alone
	$(Q)for h in $(filter %.h,$(C_FILES)); do $(CC) $(filter-out -MMD -MP,$(CFLAGS)) -x c -fsyntax-only -include $$h /dev/null || exit 1; done
	$(Q)$(if $(filter 1,$(CUDA)),for h in $(filter-out %/launch.cuh %/ptx.cuh,$(filter %.h %.cuh,$(CUDA_FILES))); do g++ $(EMULATED_FLAGS) -Wno-unused-function -x c++ -fsyntax-only -include $$h /dev/null || exit 1; done)
LINT_C := $(filter-out tests/%,$(filter %.c,$(C_FILES)))
lint: check-layers check-headers $(PROTOGEN) $(RECIPE_TEXTS) $(HELP_TEXTS) $(DEVICE_ABI) $(PAGES) ## layers, headers, manual pages, cppcheck, clang-tidy
	$(Q)sh ops/install-deps.sh lint
	$(Q)mandoc -T lint $(O)/share/man/*/*
	$(Q)cppcheck --quiet -j $(shell nproc) --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem -I. $(LINT_C)
	$(Q)echo $(LINT_C) | xargs -n 4 -P $(shell nproc) sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$$@" -- -std=gnu11 -D_GNU_SOURCE -fopenmp=libgomp -I. -I$(O)/gen 2>&1 | \
	    { ! grep -E -A4 "(warning|error): "; }' clang-tidy

coverage: ## line coverage of base, broker, proto, store, wire
	$(Q)$(MAKE) COV=1 test
	$(Q)$(PYTHON) ops/lint/coverage.py build/coverage

FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: $(FUZZERS) ## every fuzzer for TIME seconds (clang, libFuzzer, ASan, UBSan)
	$(Q)for f in $(FUZZERS); do n=$$(basename $$f); mkdir -p build/fuzz/corpus/$$n; echo "== $$n"; \
	    $$f -max_total_time=$(TIME) -rss_limit_mb=2048 -print_final_stats=0 -verbosity=0 -artifact_prefix=build/fuzz/$$n- build/fuzz/corpus/$$n || exit 1; done
FUZZ_CC := clang -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -O1 -g -std=gnu11 -D_GNU_SOURCE -fopenmp=libgomp -w -I. -I$(O)/gen
FUZZ_O  := $(LIB_SRC:%.c=build/fuzz/%.o) $(PROTOGEN:$(O)/%.c=build/fuzz/%.o)
$(FUZZERS): build/fuzz/%: build/fuzz/tests/fuzz/%.o $(FUZZ_O)
	$(Q)$(FUZZ_CC) -o $@ $^ $(ALL_L)
build/fuzz/gen/%.o: $(O)/gen/%.c | fuzz-deps
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -MMD -MP -c -o $@ $<
build/fuzz/%.o: %.c | fuzz-deps $(PROTOGEN) $(RECIPE_TEXTS) $(HELP_TEXTS) $(DEVICE_ABI)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -MMD -MP -c -o $@ $<
fuzz-deps:
	$(Q)sh ops/install-deps.sh fuzz

# Manual pages and what shells complete with are made from the programs' own help pages and tables.
PAGES := $(O)/share/made
$(PAGES): $(BINARIES) ops/man/pages.sh ops/man/page.awk
	$(Q)sh ops/man/pages.sh $(O) $(O)/share/man
	$(Q)for shell in bash zsh fish; do $(O)/blipline completion $$shell > $(O)/share/blipline.$$shell || exit 1; done
	$(Q)touch $@
man: $(PAGES) ## manual pages in build/share/man, shell completion in build/share

ROOT  = $(DESTDIR)$(PREFIX)
SHARE = $(ROOT)/share/blipline
DEMO_MODELS := models/blip2-opt-demo models/blip2-itm-demo
BASH_COMPLETION = $(ROOT)/share/bash-completion/completions/blipline
ZSH_COMPLETION  = $(ROOT)/share/zsh/site-functions/_blipline
FISH_COMPLETION = $(ROOT)/share/fish/vendor_completions.d/blipline.fish
install: build $(PAGES) ## programs, documents, manual pages, demo models and what selftest compares with to DESTDIR/PREFIX
	install -d $(ROOT)/bin $(ROOT)/share/doc/blipline
	install -m 755 $(BINARIES) $(ROOT)/bin
	$(if $(CUDA_SO),install -d $(ROOT)/lib/blipline && install -m 755 $(CUDA_SO) $(ROOT)/lib/blipline)
	install -m 644 README.md MODEL.md LICENSE $(ROOT)/share/doc/blipline
	for s in 1 7 8; do install -d $(ROOT)/share/man/man$$s && install -m 644 $(O)/share/man/man$$s/* $(ROOT)/share/man/man$$s || exit 1; done
	install -D -m 644 $(O)/share/blipline.bash $(BASH_COMPLETION)
	install -D -m 644 $(O)/share/blipline.zsh $(ZSH_COMPLETION)
	install -D -m 644 $(O)/share/blipline.fish $(FISH_COMPLETION)
	install -d $(SHARE)/proto $(SHARE)/recipes $(SHARE)/ops $(SHARE)/examples $(SHARE)/selftest/images
	install -m 644 $(PROTOS) proto/README.md $(SHARE)/proto
	install -m 644 $(RECIPES) $(SHARE)/recipes
	install -m 755 ops/mps.sh $(SHARE)/ops
	install -m 755 examples/read_store.py $(SHARE)/examples
	install -m 644 ops/mps.md ops/GPU.md $(SHARE)/ops
	install -d $(SHARE)/ops/systemd
	for f in ops/systemd/*.service; do sed 's,/usr/local/bin,$(PREFIX)/bin,' $$f >$(SHARE)/$$f && chmod 644 $(SHARE)/$$f || exit 1; done
	for d in $(DEMO_MODELS); do install -d $(SHARE)/$$d && install -m 644 $$d/* $(SHARE)/$$d || exit 1; done
	for d in demo_opt demo_itm; do install -d $(SHARE)/selftest/$$d && install -m 644 tests/golden/$$d/* $(SHARE)/selftest/$$d || exit 1; done
	install -m 644 tests/golden/decode/demo_answers.json tests/golden/decode/sampler.json $(SHARE)/selftest
	install -m 644 $(wildcard examples/images/*.jpg examples/images/*.webp) $(SHARE)/selftest/images

uninstall: ## remove what install put there; other models in share/blipline/models stay
	rm -f $(addprefix $(ROOT)/bin/,$(notdir $(BINARIES))) $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION)
	rm -f $(addprefix $(ROOT)/share/man/,man1/blipline.1 man1/blipline-*.1 man7/blipline-*.7 man8/blipline-*.8)
	rm -rf $(ROOT)/lib/blipline $(ROOT)/share/doc/blipline $(addprefix $(SHARE)/,proto recipes ops examples selftest $(DEMO_MODELS))
	for d in $(SHARE)/models $(SHARE); do [ ! -d $$d ] || rmdir --ignore-fail-on-non-empty $$d; done

ci: test ## what .ci/run does

clean: ## remove every build product
	$(Q)rm -rf build

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n",$$1,$$2}'

.PHONY: build test test-unit simulate test-e2e python-proto bench bench-ops bench-real bench-gpu gpu-check-programs demo format format-check check-layers check-headers lint coverage fuzz fuzz-deps zoo man install uninstall ci clean help test-gpu test-emulated
