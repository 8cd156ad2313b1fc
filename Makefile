# Blipline. `make demo` and `make test` are the two commands; `make help` lists the rest.
#
# Variables (make NAME=value):
#   T=name        test, test-unit, test-e2e ...: build and run only the tests whose name contains this
#   DEV=1         compiler warnings are errors (the default where CI is set)
#   CUDA=0|1      build the CUDA operators (default: 1 if nvcc is on PATH)
#   CUDA_ARCHS=   their architectures (default: all; for demo and test in a fresh tree, the one of this machine's card)
#   SAN=          address, undefined or thread: build into build/SAN with that sanitizer (make SAN=address test)
#   PYTHON=       the Python of tests and tools (default: /usr/bin/python3)
#   PREFIX= DESTDIR=   where to install (default: /usr/local)
#   V=1           show every command

CUDA   ?= $(if $(shell command -v nvcc 2>/dev/null),1,0)
DEV    ?= $(if $(CI),1,0)
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
GOALS := $(or $(MAKECMDGOALS),build)

ifeq ($(MAKELEVEL),0)
# `make demo` and `make test` install the packages that they need. Every other goal names the missing ones and stops.
ifneq ($(filter demo test,$(GOALS)),)
ifneq ($(shell sh ops/install-deps.sh 1>&2; echo $$?),0)
$(error packages are missing, see above)
endif
else
PACKAGES := $(if $(filter-out help clean uninstall format% lint check-layers check-lines fuzz,$(GOALS)),build) \
            $(if $(filter test% python-proto coverage simulate zoo bench% gpu-check-programs,$(GOALS)),test) \
            $(if $(filter lint format%,$(GOALS)),build lint) $(if $(filter fuzz,$(GOALS)),build fuzz)
MISSING := $(if $(strip $(PACKAGES)),$(shell sh ops/install-deps.sh --check $(PACKAGES)))
ifneq ($(MISSING),)
$(error $(MISSING))
endif
endif
ifneq ($(filter build demo test,$(GOALS)),)
ifeq ($(wildcard $(O)/blipline),)
$(info building into $(O): a few minutes the first time (V=1 shows the commands))
endif
endif
endif

WERROR := $(if $(filter 1,$(DEV)),-Werror)
override CFLAGS += -std=gnu11 -O3 -g -Wall -Wextra $(WERROR) -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wshadow \
                   -I. -I$(O)/gen -D_GNU_SOURCE -fno-math-errno -fno-trapping-math -pthread -fPIC -fvisibility=hidden
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

# -- folders ---------------------------------------------------------------------------------------
# Each folder becomes one archive. USES_x are the folders that x may include, LIBS_x the libraries it needs. A program
# or a test is linked with a folder, what that uses, and so on. ops/lint/layers.py checks every #include against this
# table. (tensor/cpu stands for tensor/cpu*.c, which the command does without.)
FOLDERS := base proto wire store source tensor tensor/cpu model worker encoder_worker qformer_worker llm_worker broker \
           console recipe local job client/export client/selftest client
USES_base            :=
USES_proto           := base
USES_wire            := base proto
USES_store           := base proto
USES_source          := base
USES_tensor          := base
USES_tensor/cpu      := tensor
USES_model           := base tensor
USES_worker          := base proto wire tensor tensor/cpu model
USES_encoder_worker  := base proto wire source tensor model worker
USES_qformer_worker  := base proto wire tensor model worker
USES_llm_worker      := base proto wire tensor model worker
USES_broker          := base proto wire store
USES_console         := base model
USES_recipe          := base proto tensor model console
USES_local           := base proto tensor console recipe
USES_job             := base proto wire source console
USES_client/export   := base proto store source model
USES_client/selftest := base store tensor model console recipe local
USES_client          := base proto wire store source tensor model console recipe local job client/export client/selftest

LIBS_base           := -linih
LIBS_proto          := -lprotobuf-c -lxxhash -lz
LIBS_wire           := -lzmq -lsodium -lxxhash
LIBS_store          := -llmdb -lxxhash
LIBS_source         := -lyajl -lutf8proc
LIBS_tensor         := -ldl -lm
LIBS_tensor/cpu     := -ldnnl -lgomp
LIBS_model          := -ljansson -lpcre2-8 -lutf8proc -lxxhash -lsodium
LIBS_worker         := -lsystemd
LIBS_encoder_worker := -ljpeg -lspng -lwebpdemux -lwebp -lseccomp -lz
LIBS_broker         := -lsystemd

SRC_tensor/cpu := $(filter-out tensor/cpu_isa.c,$(wildcard tensor/cpu*.c))
SRC_tensor     := $(filter-out $(SRC_tensor/cpu),$(wildcard tensor/*.c))

# A folder with all that it uses; the archives of folders; their libraries; both, as a link line names them
closure  = $(sort $(1) $(foreach f,$(USES_$(1)),$(call closure,$(f))))
archives = $(patsubst %,$(O)/%/lib.a,$(1))
libs     = $(foreach f,$(1),$(LIBS_$(f)))
link     = -Wl,--start-group $(call archives,$(1)) -Wl,--end-group $(call libs,$(1))
objects  = $(patsubst %.c,$(O)/%.o,$(1))
sources  = $(or $(SRC_$(1)),$(filter-out %/main.c,$(wildcard $(1)/*.c)))
SOURCES := $(foreach f,$(FOLDERS),$(call sources,$(f)))

.DEFAULT_GOAL := build
.SECONDARY:
.DELETE_ON_ERROR:

PROTOS   := $(wildcard proto/*.proto)
PROTOGEN := $(PROTOS:%.proto=$(O)/gen/%.pb-c.c)

define ARCHIVE
$(O)/$(1)/lib.a: $(call objects,$(call sources,$(1))) $(if $(filter proto,$(1)),$(PROTOGEN:.c=.o))
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call ARCHIVE,$(f))))

# -- programs --------------------------------------------------------------------------------------
# A program is the main.c of a folder. The command and the broker link neither oneDNN nor CUDA.
MAIN_blipline         := client
MAIN_blipline-broker  := broker
MAIN_blipline-encoder := encoder_worker
MAIN_blipline-qformer := qformer_worker
MAIN_blipline-llm     := llm_worker
PROGRAMS := blipline blipline-broker blipline-encoder blipline-qformer blipline-llm
BINARIES := $(PROGRAMS:%=$(O)/%)

define PROGRAM
$(O)/$(1): $(O)/$(2)/main.o $(call archives,$(call closure,$(2)))
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$< $(call link,$(call closure,$(2)))
endef
$(foreach p,$(PROGRAMS),$(eval $(call PROGRAM,$(p),$(MAIN_$(p)))))

$(O)/gen/%.pb-c.c $(O)/gen/%.pb-c.h: %.proto
	@mkdir -p $(@D)
	$(Q)protoc --plugin=protoc-gen-c=$$(command -v protoc-gen-c || command -v protoc-c) --c_out=$(O)/gen $<
$(O)/gen/%.o: $(O)/gen/%.c
	$(Q)$(CC) $(filter-out -Wmissing-prototypes -Wshadow,$(CFLAGS)) -MMD -MP -c -o $@ $<

RECIPES      := $(wildcard ops/recipes/*.conf)
RECIPE_TEXTS := $(O)/gen/recipe/recipe_texts.h
$(RECIPE_TEXTS): $(RECIPES) ops/recipes/to-table.awk
	@mkdir -p $(@D)
	$(Q)awk -f ops/recipes/to-table.awk $(RECIPES) > $@
HELP       := $(wildcard client/help/*.txt)
HELP_TEXTS := $(O)/gen/client/help_texts.h
$(HELP_TEXTS): $(HELP) client/help/to-header.awk
	@mkdir -p $(@D)
	$(Q)awk -f client/help/to-header.awk $(HELP) > $@
GENERATED  := $(PROTOGEN) $(RECIPE_TEXTS) $(HELP_TEXTS)

# What a shared object takes of the programs: the same objects, but in builds with sanitizers and coverage. Those need
# what only programs are linked with.
PIC := $(if $(SAN)$(filter 1,$(COV)),pic/)

# Vectors of 64 bytes travel between inlined functions only, whatever gcc says about passing them.
TENSOR_CPU := $(SRC_tensor/cpu) tensor/cpu_isa.c
$(sort $(call objects,$(TENSOR_CPU)) $(TENSOR_CPU:%.c=$(O)/$(PIC)%.o)): override CFLAGS += -fopenmp -Wno-psabi
# A third less time for the files that take longest; a debugger finds fewer variables there.
$(foreach o,$(O)/ $(O)/$(PIC),$(o)tensor/cpu_kernels_%.o): override CFLAGS += -fno-var-tracking-assignments
# Pillow's weights to the bit, on processors with fused multiply-add too
$(O)/encoder_worker/resize.o: override CFLAGS += -ffp-contract=off

$(O)/%.o: %.c | $(GENERATED)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(shell find $(O) -name '*.d' 2>/dev/null)

# -- CUDA ------------------------------------------------------------------------------------------
# The CUDA operators are a shared object that a worker loads for device = cuda:N. 90a has instructions of its own that
# help; 90-ptx is for cards that come later.
# All architectures take nvcc 11 minutes. So, in a fresh tree, `make demo` and `make test` build only one: that of the
# card in this machine; without a card 90a-quick, not optimised. build/cuda-archs says what the objects there are for.
NVCC      := nvcc
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC) 2>/dev/null)))
CUDA_SRC  := $(wildcard tensor/cuda/*.cu)
CUDA_C    := base/dtype.c base/err.c tensor/tensor.c tensor/weight_parts.c tensor/cuda/abi.c
CUDA_PIC  := $(CUDA_C:%.c=$(O)/$(PIC)%.o)
CUDA_SO   := $(if $(filter 1,$(CUDA)),$(O)/libblipline-cuda.so)
ifeq ($(CUDA)$(if $(filter demo test,$(GOALS)),1),11)
CARD_ARCH  := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | \
                awk '{ print $$1 > 9.05 ? "90-ptx" : $$1 > 8.95 ? "90a" : $$1 > 8.85 ? "89" : "80"; exit }')
CUDA_ARCHS ?= $(or $(shell cat $(O)/cuda-archs 2>/dev/null),$(CARD_ARCH),90a-quick)
else
CUDA_ARCHS ?= 80 89 90a 90-ptx
endif
export CUDA_ARCHS
gencode   = -gencode arch=compute_$(1:-ptx=),code=$(if $(filter %-ptx,$(1)),compute,sm)_$(1:-ptx=)
QUICK     := $(if $(filter %-quick,$(CUDA_ARCHS)),\
               $(if $(shell $(NVCC) --help | grep -w Ofast-compile),--Ofast-compile=max))
NVCCFLAGS := -std=c++17 -O3 -lineinfo $(QUICK) -I. $(foreach a,$(CUDA_ARCHS:-quick=),$(call gencode,$(a))) \
             -Xcompiler -fPIC,-Wall,-Wextra,-fvisibility=hidden $(WERROR:%=-Xcompiler %)

$(O)/cuda-archs: $(if $(findstring =$(CUDA_ARCHS)=,=$(shell cat $(O)/cuda-archs 2>/dev/null)=),,always)
	@mkdir -p $(@D)
	@echo '$(CUDA_ARCHS)' > $@
$(O)/tensor/cuda/%.o: tensor/cuda/%.cu $(O)/cuda-archs
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<
$(O)/libblipline-cuda.so: $(CUDA_SRC:%.cu=$(O)/%.o) $(CUDA_PIC)
	$(Q)$(NVCC) -shared -o $@ $^ -L$(CUDA_HOME)/lib64 -lcublasLt -Xlinker -rpath,$(CUDA_HOME)/lib64,-z,defs
# so that a program and the operators of another build are not put together
DEVICE_ABI := $(O)/gen/tensor/device_abi.h
$(DEVICE_ABI): tensor/ops.h tensor/tensor.h tensor/device.h base/dtype.h base/err.h
	@mkdir -p $(@D)
	$(Q)cat $^ | cksum | sed 's/\([0-9]*\).*/#define DEVICE_ABI \1u/' > $@
$(O)/tensor/device.o $(O)/$(PIC)tensor/cuda/abi.o: $(DEVICE_ABI)
$(O)/pic/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out --coverage -fsanitize% -fno-sanitize%,$(CFLAGS)) -MMD -MP -c -o $@ $<

# -- build and demo -----------------------------------------------------------------------------
build: $(BINARIES) $(CUDA_SO) ## build the five programs, and the CUDA operators where there is a toolkit

# Manual pages and what shells complete with are made from the programs' own help pages and tables.
PAGES := $(O)/share/made
$(PAGES): $(BINARIES) ops/man/pages.sh ops/man/page.awk
	$(Q)sh ops/man/pages.sh $(O) $(O)/share/man
	$(Q)for shell in bash zsh fish; do $(O)/blipline completion $$shell > $(O)/share/blipline.$$shell || exit 1; done
	$(Q)touch $@

demo: build python-proto ## caption the example pictures with the demo model
	$(Q)O=$(O) PYTHON=$(PYTHON) sh examples/demo.sh

# -- tests -----------------------------------------------------------------------------------------
# A unit test tests/unit/test_X.c is linked with the helpers beside it (tests/unit/*.c other than test_*.c) and with all
# folders. If T picks some tests, they are linked with the helpers and folders that they include, and what those use.
UNIT_C := $(wildcard tests/unit/test_*$(T)*.c)
GPU_C  := $(wildcard tests/gpu/test_*$(T)*.c)
ifeq ($(T),)
HELPERS      := $(filter-out tests/unit/test_% tests/gpu/test_%,$(wildcard tests/unit/*.c tests/gpu/*.c))
TEST_FOLDERS := $(FOLDERS)
else
headers      = $(if $(1),$(filter %.h,$(shell $(CC) -MM -MG -D_GNU_SOURCE -I. $(1) 2>/dev/null)))
helpers      = $(sort $(1) $(wildcard $(patsubst %.h,%.c,$(filter tests/unit/% tests/gpu/%,$(call headers,$(1))))))
PICKED_C     := $(call helpers,$(call helpers,$(call helpers,$(UNIT_C) $(GPU_C))))
PICKED_H     := $(call headers,$(PICKED_C))
HELPERS      := $(filter-out $(UNIT_C) $(GPU_C),$(PICKED_C))
TEST_FOLDERS := $(filter $(patsubst %/,%,$(dir $(PICKED_H))),$(FOLDERS))
TEST_FOLDERS += $(if $(filter-out tensor/tensor.h,$(filter tensor/%,$(PICKED_H))),tensor/cpu)
endif
TEST_FOLDERS := $(sort $(foreach f,$(TEST_FOLDERS),$(call closure,$(f))))
TEST_LIBS    := $(call archives,$(TEST_FOLDERS))
UNIT_HELPERS := $(call objects,$(filter tests/unit/%,$(HELPERS)))
GPU_HELPERS  := $(call objects,$(HELPERS))
UNIT_TESTS := $(UNIT_C:%.c=$(O)/%)
ifeq ($(SAN),thread)
# ThreadSanitizer cannot see how libgomp's threads wait for one another and reports every OpenMP loop as a race. So
# tests that compute are left out; the end-to-end tests are those of null workers, with real messages and daemons.
TSAN_TESTS  := base broker_socket client_session committer core core_jobs core_table cpu_pool decode feed msg \
               pool progress reader recipe row source spawn store stored table template wire_message \
               worker_session
UNIT_TESTS  := $(filter $(TSAN_TESTS:%=$(O)/tests/unit/test_%),$(UNIT_TESTS))
endif
# Half the time for the compiler, little more for the tests
$(O)/tests/unit/%.o $(O)/tests/gpu/%.o: override CFLAGS += -O1
$(O)/tests/unit/test_%: $(O)/tests/unit/test_%.o $(UNIT_HELPERS) $(TEST_LIBS)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(UNIT_HELPERS) $(call link,$(TEST_FOLDERS)) $(call libs,$(FOLDERS)) -lcmocka

SIMULATE := $(O)/tests/simulate/simulate
$(SIMULATE): $(call objects,$(wildcard tests/simulate/*.c)) $(call archives,$(call closure,broker))
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(call link,$(call closure,broker))

# A fake asynchronous device in the place of the CUDA operators, for end-to-end tests
FAKE_ASYNC_SO := $(O)/tests/e2e/libfake_async.so
FAKE_ASYNC_C  := base/dtype.c base/err.c tensor/tensor.c tensor/host.c tensor/weight_parts.c tensor/sampler.c \
                 $(TENSOR_CPU) tests/unit/fake_async_ops.c tests/unit/fake_async_calls.c \
                 tests/e2e/fake_async_device.c tensor/cuda/abi.c
$(FAKE_ASYNC_SO): $(FAKE_ASYNC_C:%.c=$(O)/$(PIC)%.o)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -pthread -Wl,-z,defs -o $@ $^ -ldnnl -lgomp -lxxhash -lm
# Preloaded by daemons that a test disturbs
PRELOADS := $(addprefix $(O)/tests/e2e/lib,faulty_disk.so faulty_jpeg.so jumping_clock.so power_cut.so signal_storm.so)
$(PRELOADS): $(O)/tests/e2e/lib%.so: $(O)/$(PIC)tests/e2e/%.o
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -pthread -o $@ $< -ldl

PYTHON_PROTO := $(PROTOS:proto/%.proto=build/gen-python/proto/%_pb2.py)
python-proto: $(PYTHON_PROTO)
build/gen-python/proto/%_pb2.py: proto/%.proto
	@mkdir -p build/gen-python
	$(Q)protoc --python_out=build/gen-python $<

# The tests of the CUDA operators run on a GPU (test-gpu) and without one (test-emulated): tests/emulator runs the same
# kernels on the CPU.
GPU_TESTS := $(GPU_C:%.c=$(O)/%)
$(O)/tests/gpu/test_%: $(O)/tests/gpu/test_%.o $(GPU_HELPERS) $(TEST_LIBS)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(GPU_HELPERS) $(call link,$(TEST_FOLDERS)) $(call libs,$(FOLDERS)) -lcmocka

# -ftrivial-auto-var-init: registers that were not set hold nonsense
EMULATED_SO    := $(O)/emulated/libblipline-cuda.so
EMULATOR_O     := $(patsubst %.cc,$(O)/emulated/%.o,$(filter-out tests/emulator/test_%,$(wildcard tests/emulator/*.cc)))
EMULATED_O     := $(CUDA_SRC:%.cu=$(O)/emulated/%.o) $(EMULATOR_O)
EMULATED_FLAGS := -std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -Wall -Wextra $(WERROR) -Wno-unknown-pragmas \
                  -Itests/emulator -I. -isystem $(CUDA_HOME)/include
EMULATED_TESTS := $(patsubst tests/emulator/%.cc,$(O)/emulated/%,$(wildcard tests/emulator/test_*$(T)*.cc))
EMULATION := $(if $(filter 1,$(CUDA)),$(GPU_TESTS) $(EMULATED_TESTS) $(EMULATED_SO))
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

# T picks end-to-end tests by the name of their file or function, or by a pytest expression. A library is built if a
# file that was picked mentions it.
E2E_PY := $(if $(filter thread,$(SAN)),tests/e2e/test_foreign.py,$(wildcard tests/e2e/test_*.py))
ifeq ($(words $(T)),1)
E2E_PY := $(sort $(filter $(wildcard tests/e2e/test_*$(T)*.py),$(E2E_PY)) \
          $(shell grep -lE 'def test_\w*$(T)' $(E2E_PY)))
endif
mention  = $(shell cat $(E2E_PY) /dev/null | grep -qF '$(1)' && echo 1)
E2E_LIBS = $(if $(call mention,libfake_async),$(FAKE_ASYNC_SO)) $(if $(call mention,preloaded),$(PRELOADS))
ifeq ($(CUDA)$(call mention,libblipline-cuda),11)
E2E_LIBS += $(CUDA_SO) $(if $(SAN)$(filter 1,$(COV)),,$(EMULATED_SO))
endif

# Tests that also run at every lower level of the CPU's vector instructions (fixture_cpu_isa, every_level in tests/e2e)
LEVEL_NAMES := demo_captions generate golden_decode golden_itm golden_opt golden_t5 lm lm_random qformer
LEVEL_TESTS := $(filter $(LEVEL_NAMES:%=$(O)/tests/unit/test_%),$(UNIT_TESTS))
LEVEL_PY    := $(if $(T),,$(shell grep -l every_level $(E2E_PY)))

PICKED := $(if $(UNIT_TESTS),test-unit) $(if $(LEVEL_TESTS),test-levels) \
          $(if $(GPU_TESTS)$(EMULATED_TESTS),$(if $(EMULATION),test-emulated)) \
          $(if $(findstring $(T),simulate),simulate) $(if $(E2E_PY),test-e2e)
test: ## every test, then the checks (T=name: only the tests whose name contains this)
ifeq ($(T),)
	$(Q)$(MAKE) --no-print-directory build python-proto $(UNIT_TESTS) $(SIMULATE) $(EMULATION) $(E2E_LIBS) $(PAGES)
	$(Q)echo "tests and checks: side by side, a few minutes; each one's output comes when it has ended"
	$(Q)$(MAKE) --no-print-directory --output-sync test-e2e test-levels test-emulated test-unit simulate checks
else
	$(Q)$(if $(strip $(PICKED)),,echo "make: no test has '$(T)' in its name" >&2; exit 2)
	$(Q)for t in $(PICKED); do $(MAKE) --no-print-directory $$t || exit 1; done
endif

test-unit: $(UNIT_TESTS) ## unit and golden tests
	$(Q)sh tests/run-unit.sh $(UNIT_TESTS)

# Tests wait half of the time, so two run on each CPU; loadgroup gives them out one by one. With T they run in order.
E2E_WORKERS := $(if $(T),,-n $(shell n=$$(nproc); echo $$((n < 8 ? 2 * n : 16))) --dist=loadgroup)
E2E_NEEDS = $(BINARIES) $(PAGES) python-proto $(E2E_LIBS)
PYTEST = $(PYTHON) -m pytest -q -p no:cacheprovider $(E2E_WORKERS)
test-e2e test-levels: export PYTHONPATH := $(abspath build/gen-python)
test-e2e test-levels: export SLOW_BUILD := $(SAN)$(filter 1,$(COV))
test-e2e: $(E2E_NEEDS) ## real daemons, with kill -9, bad pictures, foreign clients
	$(Q)O=$(abspath $(O)) $(PYTEST) $(E2E_PY) $(if $(T),-k '$(T)')

test-levels: $(LEVEL_TESTS) $(if $(LEVEL_PY),$(E2E_NEEDS)) ## tests that also run at lower CPU levels
	$(Q)sh tests/levels.sh sh tests/run-unit.sh $(LEVEL_TESTS)
	$(Q)$(if $(LEVEL_PY),O=$(abspath $(O)) sh tests/levels.sh $(PYTEST) $(LEVEL_PY) -m every_level)

simulate: $(SIMULATE) ## the broker's scheduler in a simulated world of faults, 300 seeds and every planted bug
	$(Q)$(SIMULATE) --seeds 300

cuda_tests = $(if $(filter 1,$(CUDA)),BLIPLINE_TEST_CUDA_LIBRARY=$(abspath $(1)) sh tests/run-unit.sh $(2),\
             echo "$@: skipped, no CUDA toolkit here")
LONGEST := $(filter %/test_cuda_models,$(GPU_TESTS))
test-emulated: $(EMULATION) ## the CUDA operators' tests on the CPU, in an emulator
	$(Q)$(call cuda_tests,$(EMULATED_SO),$(LONGEST) $(EMULATED_TESTS) $(filter-out $(LONGEST),$(GPU_TESTS)))

test-gpu: $(GPU_TESTS) $(CUDA_SO) ## the CUDA operators' tests on a GPU, cuda:0
	$(Q)$(call cuda_tests,$(CUDA_SO),$(GPU_TESTS))

DECODE_RGB := $(O)/tests/zoo/decode_rgb
$(DECODE_RGB): $(O)/tests/zoo/decode_rgb.o $(O)/tests/unit/verdict.o $(call archives,$(call closure,encoder_worker))
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(call link,$(call closure,encoder_worker))
zoo: $(DECODE_RGB) ## compare the picture decoders with Pillow 12.3, which PYTHON= must have
	$(Q)$(PYTHON) tests/zoo/zoo.py compare $(DECODE_RGB) $(ARGS)

coverage: ## line coverage by folder, with a floor for base, broker, proto, store, wire
	$(Q)$(MAKE) COV=1 test
	$(Q)$(PYTHON) ops/lint/coverage.py build/coverage

FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: $(FUZZERS) ## every fuzzer for TIME=30 seconds (clang, libFuzzer, ASan, UBSan)
	$(Q)for f in $(FUZZERS); do n=$$(basename $$f); mkdir -p build/fuzz/corpus/$$n; echo "== $$n"; \
	    $$f -max_total_time=$(TIME) -rss_limit_mb=2048 -print_final_stats=0 -verbosity=0 \
	        -artifact_prefix=build/fuzz/$$n- build/fuzz/corpus/$$n || exit 1; done
FUZZ_CC := clang -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -O1 -g -w \
           -std=gnu11 -D_GNU_SOURCE -fopenmp=libgomp -I. -I$(O)/gen
FUZZ_O  := $(SOURCES:%.c=build/fuzz/%.o) $(PROTOGEN:$(O)/%.c=build/fuzz/%.o)
$(FUZZERS): build/fuzz/%: build/fuzz/tests/fuzz/%.o $(FUZZ_O)
	$(Q)$(FUZZ_CC) -o $@ $^ $(call libs,$(FOLDERS))
build/fuzz/gen/%.o: $(O)/gen/%.c
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -MMD -MP -c -o $@ $<
build/fuzz/%.o: %.c | $(GENERATED) $(DEVICE_ABI)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -MMD -MP -c -o $@ $<

# -- benchmarks ------------------------------------------------------------------------------------
$(O)/tests/bench/fma_peak.o: override CFLAGS += -fopenmp
BENCHES := $(filter-out %/bench_real %/bench_gpu,$(patsubst %.c,$(O)/%,$(wildcard tests/bench/bench_*.c)))
BENCH_HELPERS := $(call objects,$(filter-out tests/bench/bench_%,$(wildcard tests/bench/*.c)))
$(O)/tests/bench/bench_%: $(O)/tests/bench/bench_%.o $(BENCH_HELPERS) $(call archives,$(FOLDERS))
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(BENCH_HELPERS) $(call link,$(FOLDERS))

bench: build python-proto $(BENCHES) ## measure operators, stages, scheduler, store, wire and the whole chain
	$(Q)O=$(O) sh tests/bench/run.sh $(BENCHES)
bench-ops: $(O)/tests/bench/bench_ops ## measure the operators beside bare products
	$(Q)OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=10000 $<
bench-real: $(O)/tests/bench/bench_real ## measure checkpoints of published size (ARGS="--presets opt-2.7b --scale 4")
	$(Q)O=$(O) $(PYTHON) tests/bench/real_size.py $(ARGS)
GPU_CHECK_PROGRAMS := $(GPU_TESTS) $(O)/tests/bench/bench_gpu
gpu-check-programs: build $(GPU_CHECK_PROGRAMS) ## build what ops/gpu-check.sh packs for a machine with a GPU
bench-gpu: build $(GPU_CHECK_PROGRAMS) ## measure a GPU, in turn with transformers (ARGS="--seconds 2 --only bench")
	$(Q)O=$(abspath $(O)) PYTHON=$(PYTHON) \
	    sh ops/gpu-check.sh run $(O)/gpu --only machine,hf,bench,chain --seconds 10 $(ARGS)

# -- checks ----------------------------------------------------------------------------------------
FOLDER_FILES := $(foreach f,$(FOLDERS),$(wildcard $(f)/*.[ch]))
C_FILES      := $(FOLDER_FILES) $(filter-out tests/emulator/%,$(wildcard tests/*/*.[ch]))
CUDA_FILES   := $(wildcard $(addprefix tensor/cuda/*.,cu cuh h) $(addprefix tests/emulator/*,.cc .h /*/*.cuh))
LINT_C       := $(filter %.c,$(FOLDER_FILES))

# Other versions of clang's tools format and warn differently.
CLANG := 14
ifeq ($(filter checks,$(GOALS))$(SAN)$(filter 1,$(COV)),checks)
HAS_CLANG := $(shell clang-tidy --version 2>/dev/null | grep ' $(CLANG)\.')
LACKS_CLANG := $(if $(HAS_CLANG),$(shell sh ops/install-deps.sh --check lint),1)
CLANG_CHECKS := $(if $(LACKS_CLANG),no-clang,format-check lint)
endif
checks: check-layers check-lines check-logs check-unused check-headers $(CLANG_CHECKS)
no-clang:
	@echo "format-check, lint: skipped, clang's tools are not installed (ops/install-deps.sh lint)"

format: ## clang-format in place
	$(Q)clang-format -i $(C_FILES) $(CUDA_FILES)
format-check: ## fail if clang-format would change something
	$(Q)clang-format --dry-run -Werror $(C_FILES) $(CUDA_FILES) && echo "format: ok"
check-layers: ## who may include whom, and which folder owns which library
	$(Q)$(PYTHON) ops/lint/layers.py
check-lines: ## no line is longer than 120 columns
	$(Q)! LC_ALL=C.UTF-8 grep -HnE '^.{121}' $(C_FILES) $(CUDA_FILES) Makefile \
	    $$(find examples ops tests -name '*.py' -o -name '*.sh')
	@echo "lines: ok"
check-unused: ## no public function without a caller
	$(Q)$(PYTHON) ops/lint/unused.py
check-logs: ## log lines of daemons are logfmt
	$(Q)$(PYTHON) ops/lint/logfmt.py
	@echo "logs: ok"
HEADERS      := $(patsubst %,$(O)/lint/%.alone,$(filter %.h,$(C_FILES)))
CUDA_HEADERS := $(patsubst %,$(O)/lint/%.alone,$(filter-out %/launch.cuh %/ptx.cuh,$(filter %.h %.cuh,$(CUDA_FILES))))
check-headers: $(HEADERS) $(if $(filter 1,$(CUDA)),$(CUDA_HEADERS)) ## every header compiles alone
	@echo "headers: ok"
$(HEADERS): $(O)/lint/%.alone: % | $(GENERATED)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -Werror -x c -fsyntax-only -MMD -MP -MT $@ -MF $@.d -include $< /dev/null
	@touch $@
$(CUDA_HEADERS): $(O)/lint/%.alone: %
	@mkdir -p $(@D)
	$(Q)g++ $(EMULATED_FLAGS) -Werror -Wno-unused-function -x c++ -fsyntax-only -MMD -MP -MT $@ -MF $@.d \
	    -include $< /dev/null
	@touch $@
# A file is looked at again when its object is newer: when the file or a header of it has changed.
TIDY := $(LINT_C:%.c=$(O)/lint/%.tidy)
$(TIDY): $(O)/lint/%.tidy: %.c $(O)/%.o .clang-tidy
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- -std=gnu11 -D_GNU_SOURCE -fopenmp=libgomp -I. -I$(O)/gen \
	    >$@.txt 2>&1 || { grep -E -A4 '(warning|error): ' $@.txt; false; }
	@touch $@
lint: check-layers check-unused check-headers $(TIDY) $(PAGES) ## layers, headers, manual pages, cppcheck, clang-tidy
	$(Q)mandoc -T lint $(O)/share/man/*/*
	@mkdir -p $(O)/lint/cppcheck
	$(Q)cppcheck --quiet -j $(shell nproc) --cppcheck-build-dir=$(O)/lint/cppcheck --error-exitcode=1 --std=c11 \
	    --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem -I. $(LINT_C)
	@echo "lint: ok"

compile_commands.json: Makefile ## for editors and clang's tools
	$(Q)$(MAKE) --no-print-directory -Bnk V=1 $(BINARIES) $(UNIT_TESTS) $(SIMULATE) 2>/dev/null | \
	    $(PYTHON) ops/lint/compile_commands.py > $@

# -- install ---------------------------------------------------------------------------------------
man: $(PAGES) ## manual pages in build/share/man, shell completion in build/share

ROOT  = $(DESTDIR)$(PREFIX)
SHARE = $(ROOT)/share/blipline
DEMO_MODELS := models/blip2-opt-demo models/blip2-itm-demo
BASH_COMPLETION = $(ROOT)/share/bash-completion/completions/blipline
ZSH_COMPLETION  = $(ROOT)/share/zsh/site-functions/_blipline
FISH_COMPLETION = $(ROOT)/share/fish/vendor_completions.d/blipline.fish
install: build $(PAGES) ## install everything that runs, with its documents, to DESTDIR/PREFIX
	install -d $(ROOT)/bin $(ROOT)/share/doc/blipline
	install -m 755 $(BINARIES) $(ROOT)/bin
	$(if $(CUDA_SO),install -d $(ROOT)/lib/blipline && install -m 755 $(CUDA_SO) $(ROOT)/lib/blipline)
	install -d $(ROOT)/share/doc/blipline/docs
	install -m 644 README.md MODEL.md LICENSE $(ROOT)/share/doc/blipline
	install -m 644 docs/*.md docs/*.jpg $(ROOT)/share/doc/blipline/docs
	for s in man1 man7 man8; do \
	    install -d $(ROOT)/share/man/$$s && install -m 644 $(O)/share/man/$$s/* $(ROOT)/share/man/$$s || exit 1; done
	install -D -m 644 $(O)/share/blipline.bash $(BASH_COMPLETION)
	install -D -m 644 $(O)/share/blipline.zsh $(ZSH_COMPLETION)
	install -D -m 644 $(O)/share/blipline.fish $(FISH_COMPLETION)
	install -d $(SHARE)/proto $(SHARE)/recipes $(SHARE)/ops $(SHARE)/examples $(SHARE)/selftest/images
	install -m 644 $(PROTOS) proto/README.md $(SHARE)/proto
	install -m 644 $(RECIPES) $(SHARE)/recipes
	install -m 755 ops/mps.sh $(SHARE)/ops
	install -m 755 examples/read_store.py $(SHARE)/examples
	install -d $(SHARE)/ops/systemd
	for f in ops/systemd/*.service; do \
	    sed 's,/usr/local/bin,$(PREFIX)/bin,' $$f >$(SHARE)/$$f && chmod 644 $(SHARE)/$$f || exit 1; done
	for d in $(DEMO_MODELS); do install -d $(SHARE)/$$d && install -m 644 $$d/* $(SHARE)/$$d || exit 1; done
	for d in demo_opt demo_itm; do \
	    install -d $(SHARE)/selftest/$$d && install -m 644 tests/golden/$$d/* $(SHARE)/selftest/$$d || exit 1; done
	install -m 644 tests/golden/decode/demo_answers.json tests/golden/decode/sampler.json $(SHARE)/selftest
	install -m 644 $(wildcard examples/images/*.jpg examples/images/*.webp) $(SHARE)/selftest/images

uninstall: ## remove what install put there; your own models stay
	rm -f $(addprefix $(ROOT)/bin/,$(notdir $(BINARIES))) $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION)
	rm -f $(addprefix $(ROOT)/share/man/,man1/blipline.1 man1/blipline-*.1 man7/blipline-*.7 man8/blipline-*.8)
	rm -rf $(ROOT)/lib/blipline $(ROOT)/share/doc/blipline
	rm -rf $(addprefix $(SHARE)/,proto recipes ops examples selftest $(DEMO_MODELS))
	for d in $(SHARE)/models $(SHARE); do [ ! -d $$d ] || rmdir --ignore-fail-on-non-empty $$d; done

clean: ## remove every build product
	$(Q)rm -rf build

help: ## this list
	@echo "Two commands: make demo, make test. All of them, in groups:"
	@awk -F':.*## ' '/^# -- / { sub(/^# -- /, ""); sub(/ *-+$$/, ""); group = $$0 } \
	    /^[a-z0-9_.-]+:.*## / { if (group) printf "\n%s\n", group; group = ""; printf "  make %-22s %s\n", $$1, $$2 }' \
	    $(MAKEFILE_LIST)
	@printf '\nVariables (make NAME=value ...)\n'
	@sed -n '/^# Variables/,/^$$/s/^#   /  /p' $(MAKEFILE_LIST)

always:
.PHONY: always no-clang build demo python-proto test test-unit test-levels test-e2e simulate test-emulated test-gpu \
        zoo coverage fuzz bench bench-ops bench-real gpu-check-programs bench-gpu checks format format-check \
        check-layers check-lines check-unused check-logs check-headers lint man install uninstall clean help
