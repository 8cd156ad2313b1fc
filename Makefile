# Blipline. `make demo` and `make test` are the two commands; `make help` lists the rest.
#
# Knobs:  CUDA=0|1   build the CUDA operators (default: 1 where nvcc is on PATH)
#         SAN=       address | undefined | thread: build into build/<SAN>/ with that sanitizer
#         T=         run only the unit or e2e tests whose name contains this
#         V=1        show every command       PYTHON=  python3 used by tests and tools

CUDA   ?= $(if $(shell command -v nvcc 2>/dev/null),1,0)
SAN    ?=
T      ?=
V      ?= 0
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
CC     := gcc

Q := $(if $(filter 1,$(V)),,@)
O := build$(if $(SAN),/$(SAN))

# -- first contact: install what is missing, then build ------------------------------------------------------------------------------
LIBS := libzmq libprotobuf-c lmdb libjpeg spng libwebp libpcre2-8 jansson libxxhash libsodium libsystemd zlib
ifeq ($(filter help clean deps format format-check,$(MAKECMDGOALS)),)
DEPS_OK := $(shell sh ops/install-deps.sh --check >/dev/null 2>&1 && echo yes)
ifneq ($(DEPS_OK),yes)
$(info blipline: installing what the build needs (ops/install-deps.sh))
ifneq ($(shell sh ops/install-deps.sh 1>&2; echo $$?),0)
$(error packages are missing, see the line above)
endif
endif
endif

pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)

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

objects = $(patsubst %.c,$(O)/%.o,$(1))

BASE    := $(wildcard base/*.c)
PROTOS  := $(wildcard proto/*.proto)
PROTOGEN := $(PROTOS:%.proto=$(O)/gen/%.pb-c.c)
PROTO   := $(wildcard proto/*.c)
WIRE    := $(wildcard wire/*.c)
STORE   := $(wildcard store/*.c)
SOURCE  := $(wildcard source/*.c)
TENSOR_CPU := $(wildcard tensor/cpu*.c)
TENSOR  := $(filter-out $(TENSOR_CPU),$(wildcard tensor/*.c))
MODEL   := $(wildcard model/*.c)

PROTO_O := $(call objects,$(PROTO)) $(PROTOGEN:.c=.o)

# what each program is made of; broker and command link neither oneDNN nor CUDA
BROKER_O  := $(call objects,$(BASE) $(WIRE) $(STORE) $(wildcard broker/*.c)) $(PROTO_O)
ENCODER_O := $(call objects,$(BASE) $(WIRE) $(SOURCE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(wildcard encoder_worker/*.c)) $(PROTO_O)
QFORMER_O := $(call objects,$(BASE) $(WIRE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(wildcard qformer_worker/*.c)) $(PROTO_O)
LLM_O     := $(call objects,$(BASE) $(WIRE) $(TENSOR) $(TENSOR_CPU) $(MODEL) $(wildcard llm_worker/*.c)) $(PROTO_O)
CLIENT_O  := $(call objects,$(BASE) $(WIRE) $(STORE) $(SOURCE) $(TENSOR) $(MODEL) $(wildcard client/*.c)) $(PROTO_O)

BASE_L    := -linih
WIRE_L    := -lzmq -lprotobuf-c -lxxhash -lsodium
STORE_L   := -llmdb -lz
MODEL_L   := -ljansson -lpcre2-8 -lxxhash -lm
TENSOR_L  := -ldnnl -lgomp -lm
CODEC_L   := -ljpeg -lspng -lwebp
DAEMON_L  := -lsystemd

BINARIES := $(addprefix $(O)/,blipline blipline-broker blipline-encoder blipline-qformer blipline-llm)

.DEFAULT_GOAL := build
.SECONDARY:
.DELETE_ON_ERROR:

build: $(BINARIES) ## build the five programs

$(O)/blipline-broker: $(BROKER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(STORE_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-encoder: $(ENCODER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(CODEC_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-qformer: $(QFORMER_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline-llm: $(LLM_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(MODEL_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)
$(O)/blipline: $(CLIENT_O)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(WIRE_L) $(STORE_L) $(MODEL_L) $(BASE_L)

$(O)/gen/%.pb-c.c $(O)/gen/%.pb-c.h: %.proto
	@mkdir -p $(@D)
	$(Q)protoc --plugin=protoc-gen-c=$$(command -v protoc-gen-c || command -v protoc-c) --c_out=$(O)/gen $<

$(O)/gen/%.o: $(O)/gen/%.c
	$(Q)$(CC) $(filter-out -Wmissing-prototypes -Wshadow,$(CFLAGS)) -MMD -MP -c -o $@ $<

$(O)/%.o: %.c | $(PROTOGEN)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(CFLAGS_$(subst /,_,$*)) -MMD -MP -c -o $@ $<

-include $(shell find $(O) -name '*.d' 2>/dev/null)

# -- tests ---------------------------------------------------------------------------------------------------------------------------
# A unit test tests/unit/test_X.c is linked with everything but the daemons' main.c and prints cmocka's summary.
LIB_SRC := $(BASE) $(PROTO) $(WIRE) $(STORE) $(SOURCE) $(TENSOR) $(TENSOR_CPU) $(MODEL) \
           $(filter-out %/main.c,$(wildcard encoder_worker/*.c qformer_worker/*.c llm_worker/*.c broker/*.c client/*.c))
LIB_A   := $(O)/libblipline-all.a
$(LIB_A): $(call objects,$(LIB_SRC)) $(PROTOGEN:.c=.o)
	$(Q)rm -f $@ && ar rcs $@ $^
ALL_L   := $(WIRE_L) $(STORE_L) $(MODEL_L) $(CODEC_L) $(TENSOR_L) $(BASE_L) $(DAEMON_L)

UNIT_TESTS := $(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(wildcard tests/unit/test_*$(T)*.c))
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(LIB_A)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(LIB_A) $(ALL_L) -lcmocka

test-unit: $(UNIT_TESTS) ## unit and golden tests
	$(Q)for t in $(UNIT_TESTS); do echo "== $$t"; $$t || exit 1; done

clean: ## remove every build product
	$(Q)rm -rf build

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n",$$1,$$2}'

.PHONY: build test-unit clean help
