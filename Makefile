# make demo: see a C program fork in WebAssembly. make test: everything that must hold. Both set up what they need.

# Third-party sources, their builds, and tools: outside of the tree if this is set.
export FORK_INSTRUMENT_DEPS ?= $(CURDIR)/third_party

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
NODE := $(FORK_INSTRUMENT_DEPS)/node-$(shell sed -n s/^node_version=//p scripts/lib.sh)/bin/node
REFERENCES := $(TARGET)/snapshot-references

# One profile, and always the whole workspace, so that what all of these depend on is built once.
CARGO_ALL := --release --workspace

.PHONY: help setup tools build demo test check test-rust test-node test-demo test-programs test-some-programs test-published test-shell \
	test-large test-sizes test-profiles bench fuzz sanitize clean distclean

help:
	@echo "make setup   packages and Binaryen's source       make demo    a C program that forks"
	@echo "make build   wasm-opt and the hosts, optimised    make test    all tests"
	@echo "make bench   speed and size                       make fuzz MINUTES=10    random programs"
	@echo "make sanitize    the C++ side under sanitizers"
	@echo "make clean   what cargo built                     make distclean    third-party files too"

setup:
	scripts/install-packages
	scripts/fetch-binaryen

tools: setup
	scripts/fetch-test-tools

build: setup
	cargo build $(CARGO_ALL) --bins

demo:
	scripts/demo

# Programs that the tests run; `make test-programs` alone runs all.
TESTED_PROGRAMS = pipeline kvstore_snapshot qsort_callback recursion bzip2 exceptions exceptions-legacy lua-eh sqlite

test: check test-rust test-demo test-some-programs test-sizes test-node test-profiles

test-some-programs: tools build
	AT=5 AFTER=nothing scripts/test-programs $(TESTED_PROGRAMS)

# The demo ends with what the program prints.
test-demo: tools build
	scripts/demo >$(TARGET)/demo.log
	tail -n "$$(wc -l <examples/pipeline.expected)" $(TARGET)/demo.log | cmp - examples/pipeline.expected

# SQLite, with 32-bit and with 64-bit memory, and without newer features, forks at every write, into a buffer of another
# size each time.
test-sizes: tools build
	AFTER=nothing LEVELS=O2 ENGINES=wasmtime SCHEDULES=sizes scripts/test-programs sqlite sqlite-mvp sqlite-wasm64

# The tool writes the same bytes however it was compiled.
test-profiles: tools build
	scripts/compare-profiles

# Formatting and lints.
check: tools
	cargo fmt --all --check
	clang-format --dry-run -Werror $(wildcard cpp/*.h cpp/*.cpp)
	cargo clippy $(CARGO_ALL) --all-targets -- -D warnings

# Afterwards every snapshot must have been compared with something.
test-rust: tools
	@mkdir -p $(TARGET)
	@rm -f $(REFERENCES)
	INSTA_UPDATE=no INSTA_SNAPSHOT_REFERENCES_FILE=$(REFERENCES) cargo test $(CARGO_ALL)
	scripts/check-snapshots $(REFERENCES)

test-node: tools
	$(NODE) --test tests/node/*.test.mjs

# The examples and the real programs, on both engines. AT=1000000 forks at every call.
test-programs: tools build
	scripts/test-programs

# A compiler, language runtimes and a database as they are published, on V8: 300 MB are downloaded.
test-published: tools build
	scripts/test-published

# A shell, dash: its source comes with `apt-get source`.
test-shell: tools build
	scripts/test-shell

# A function of 200 MB and half a million functions: some minutes, and up to 16 GB of memory.
test-large: build
	scripts/test-large $(TARGET)/release/wasm-opt

# Writes docs/benchmarks.*. BENCH_ARGS measures a part: "--only sqlite --rows size,locals".
bench: tools build
	LEVELS=O2 scripts/build-programs $(TARGET)/programs sqlite lua quickjs wasm3 bzip2 zlib lz4 zstd onig
	$(TARGET)/release/fork-bench $(BENCH_ARGS)

# All kinds of random programs, and rewinds from corrupted buffers, for MINUTES in all; status 1 if there is a finding.
MINUTES = 10
fuzz: tools build
	scripts/build-fuzz-modules $(TARGET)/fuzz-modules
	$(TARGET)/release/fork-fuzz all --minutes $(MINUTES) --modules $(TARGET)/fuzz-modules $(FUZZ_ARGS)

# The C++ side under AddressSanitizer and UndefinedBehaviorSanitizer. SANITIZE_ARGS=--all includes Binaryen itself.
sanitize: tools build
	scripts/sanitize $(SANITIZE_ARGS)

clean:
	cargo clean

distclean: clean
	rm -rf third_party
