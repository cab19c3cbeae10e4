# make demo   build, clean a real noisy recording, draw it
# make test   every test
# make kernels  run the GPU's kernels on the host against their definitions; compile them again, compare with what is committed
# make gpu-test  the GPU's tests; without a GPU it says how many were not run
# make launchers  two processes that train together, by Open MPI's mpirun and PyTorch's torchrun
# make servers  live, with JACK's dummy driver and PulseAudio's null sinks
# make loom  what live's threads hand each other, in every order
# make rtsan  the real-time path under the real-time sanitizer
# make fuzz   model files, recipes and sounds, a minute each (FUZZ_SECONDS=600 for longer)
SHELL := /bin/bash
CARGO ?= cargo
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
RTSAN_LIB := $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/$(HOST)/lib/librustc-stable_rt.rtsan.a

.PHONY: demo test launchers servers loom kernels gpu-test rtsan fuzz tools data

demo: tools
	$(CARGO) build --release
	$(or $(CARGO_TARGET_DIR),target)/release/cascabel process models/demo/noisy.wav -o clean.wav --picture spectrograms.png
	$(or $(CARGO_TARGET_DIR),target)/release/cascabel info denoise
	@echo "wrote clean.wav and spectrograms.png"

test: tools
	RAYON_NUM_THREADS=1 $(CARGO) test --all-targets
	RAYON_NUM_THREADS=1 $(CARGO) test --doc
	$(MAKE) launchers
	$(MAKE) servers
	$(MAKE) loom
	$(MAKE) rtsan
	$(MAKE) gpu-test

# Every order in which the threads of a live session can take turns at what they hand each other.
loom: tools
	RUSTFLAGS="--cfg cascabel_loom" $(CARGO) test --no-default-features --lib --target-dir $(or $(CARGO_TARGET_DIR),target)/loom loom_

# Several processes, as the usual launchers start them: torchrun where PyTorch is there already, for it is large. (Slurm's needs its daemons.)
launchers: tools
	@command -v mpirun >/dev/null || { $(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openmpi-bin; }
	$(CARGO) test --test cli -- --ignored mpirun_
	@if command -v torchrun >/dev/null; then $(CARGO) test --test cli -- --ignored torchrun_; else echo "no torchrun: 1 test not run"; fi

# Live, with real audio servers and no sound card.
servers: tools
	@{ command -v jackd && command -v pulseaudio && command -v paplay && ls /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so; } >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			jackd2 pulseaudio pulseaudio-utils libasound2-plugins; }
	$(CARGO) test --test servers -- --ignored --nocapture --test-threads 1
	$(CARGO) build --example live
	@jackd -R -P 70 -S -d dummy -r 48000 -p 64 >/dev/null 2>&1 & server=$$!; trap "kill $$server" EXIT; sleep 3; \
		{ sleep 2; echo; } | $(CARGO) run --example live -- jack jack

# With a CUDA toolkit and a GPU.
gpu-test:
	@count=$$(grep -rh 'needs an NVIDIA GPU: make gpu-test' src | wc -l); \
	if [ ! -e /dev/nvidiactl ]; then \
		echo "no GPU: $$count tests not run"; \
	elif ! command -v $${NVCC:-nvcc} >/dev/null; then \
		echo "no nvcc to build them with (set NVCC): $$count GPU tests not run"; \
	else \
		$(CARGO) test --release --features train-cuda --lib -- --ignored --nocapture gpu_; \
	fi

# Needs no GPU: the compiler comes as wheels.
kernels: tools
	@{ command -v g++ && python3 -c 'import ensurepip, venv'; } >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends g++ python3-venv; }
	kernels/host/test.sh
	kernels/check.sh

# Every op through advance and reset; one allocation, lock or system call there ends the test program.
rtsan: tools
	@if [ -f "$(RTSAN_LIB)" ]; then \
		RTSAN_ENABLE=1 RTSAN_LIB_PATH="$(RTSAN_LIB)" $(CARGO) test --lib rtsan_ -- --include-ignored; \
	else \
		echo "make rtsan: skipped, for this Rust has no real-time sanitizer: $(RTSAN_LIB) is missing"; \
	fi

# Coverage-guided, with the address sanitizer; begins from the kept inputs and from what earlier runs found. An input that breaks
# something is left in fuzz/artifacts; once the cause is fixed it goes to tests/fuzzed.
FUZZ_SECONDS ?= 60
fuzz: tools
	@command -v g++ >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends g++; }
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	@rustup toolchain list | grep -q nightly || rustup toolchain install nightly --profile minimal
	@for target in model_file recipe sound; do \
		mkdir -p fuzz/corpus/$$target && cp tests/fuzzed/$$target/* fuzz/corpus/$$target/ && \
		{ [ $$target != sound ] || cp tests/data/chirp* fuzz/corpus/sound/; } && \
		RUSTUP_TOOLCHAIN=nightly cargo fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=15 -max_len=20000 || exit 1; \
	done

# What a bare Debian machine with Rust may lack: a C compiler and linker for two dependencies, headers for sound cards and audio servers.
tools:
	@{ command -v cc && pkg-config --exists alsa jack; } >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends gcc libc6-dev libasound2-dev libjack-jackd2-dev pkg-config; } \
		|| { echo "make: a C compiler or the headers of ALSA and JACK are missing and could not be installed: install gcc, libasound2-dev, libjack-jackd2-dev and pkg-config" >&2; exit 2; }

data:
	models/data/prepare.sh data/denoise
