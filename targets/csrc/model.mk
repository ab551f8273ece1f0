# include path/to/bundle/model.mk
#
#     program: program.c ; $(CC) $(MODEL_CPPFLAGS) $< $(MODEL_LDLIBS) -o $@
#
# MODEL_LDLIBS is model.so, found where it lies now; MODEL_STATIC_LDLIBS is model.a: nothing but MODEL_WEIGHTS is needed where it runs.

MODEL_DIR := $(patsubst %/,%,$(abspath $(dir $(lastword $(MAKEFILE_LIST)))))
MODEL_WEIGHTS := $(MODEL_DIR)/weights.bin
MODEL_CPPFLAGS := -I$(MODEL_DIR)
MODEL_LDLIBS := $(MODEL_DIR)/model.so -Wl,-rpath,$(MODEL_DIR)
MODEL_STATIC_LDLIBS := $(MODEL_DIR)/model.a -pthread -lm
