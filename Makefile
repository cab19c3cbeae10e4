# make demo   build, clean a real noisy recording, draw it
# make test   every test
# make rtsan  the real-time path under the real-time sanitizer
SHELL := /bin/bash
CARGO ?= cargo
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
RTSAN_LIB := $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/x86_64-unknown-linux-gnu/lib/librustc-stable_rt.rtsan.a

.PHONY: demo test rtsan tools data

demo: tools
	$(CARGO) build --release
	./target/release/cascabel process models/demo/noisy.wav -o clean.wav --picture spectrograms.png
	./target/release/cascabel info denoise
	@echo "wrote clean.wav and spectrograms.png"

test: tools
	RAYON_NUM_THREADS=1 $(CARGO) test --all-targets
	RAYON_NUM_THREADS=1 $(CARGO) test --doc
	$(MAKE) rtsan

# Every op through advance and reset; one allocation, lock or system call there ends the test program.
rtsan: tools
	RTSAN_ENABLE=1 RTSAN_LIB_PATH=$(RTSAN_LIB) $(CARGO) test --lib rtsan_ -- --include-ignored

# What a bare Debian machine with Rust may lack: a C compiler and linker for two dependencies.
tools:
	@command -v cc >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends gcc libc6-dev; } \
		|| { echo "make: a C compiler is missing and could not be installed: install gcc" >&2; exit 2; }

data:
	models/data/prepare.sh data/denoise
