# ConMon. `make test` is what CI runs; `make demo` shows it at work. Every target is the same here and there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Executables are static, so the target is named explicitly (.cargo/config.toml); build for the machine we are on.
TRIPLE := $(shell uname -m)-unknown-linux-gnu
export CARGO_BUILD_TARGET = $(TRIPLE)
OUT = target/$(TRIPLE)/release
PROGRAMS = $(OUT)/conmond $(OUT)/conmonctl
# Empty when we are root already.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env)

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# Cargo itself stays who we are; what it runs is root.
AS_ROOT := $(if $(SUDO),env "CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_RUNNER=sudo --preserve-env env PATH=$(PATH)",)
SOAK_MINUTES ?= 60
FUZZ_TIMES ?= 50
PREFIX ?= /usr/local
UNITDIR ?= /etc/systemd/system

.PHONY: help setup build test lint demo bench soak fuzz compat fmt image install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install what building and testing need (Debian packages, Rust toolchain)
	@scripts/setup.sh

build: ## static release executables: conmond, conmonctl, lab
	cargo build --workspace --release --locked
	@scripts/check-static $(PROGRAMS)

lint: ## formatting, clippy with warnings as errors, licences and sources of dependencies
	cargo fmt --all --check
	@for file in tap/bpf/*.[ch]; do \
	    grep -q 'SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause' "$$file" || \
	    { echo "$$file: no SPDX line"; exit 1; }; done
	cargo clippy --workspace --all-targets --release --locked -- -D warnings
	@scripts/check-deps

test: setup ## everything CI checks: lint, build, all tests (root or sudo for the privileged ones)
	@$(MAKE) lint
	@$(MAKE) build
	@scripts/run-tests

demo: setup ## real applications on an engine of their own, watched live (DEMO_SECONDS=N: ends by itself)
	@$(MAKE) build
	@$(SUDO) $(OUT)/demo

bench: setup ## cost per packet and every other benchmark, as root; they print their own intervals
	@$(MAKE) build
	$(AS_ROOT) cargo bench --workspace --locked --bench '*'

soak: setup ## the privileged tests over and over, SOAK_MINUTES (60) long or until one fails
	@$(MAKE) build
	@end=$$(( SECONDS + 60 * $(SOAK_MINUTES) )); round=0; \
	while (( SECONDS < end )); do \
	    round=$$(( round + 1 )); echo "== round $$round"; \
	    $(AS_ROOT) cargo test --workspace --release --locked --tests -- root_ --test-threads=1; \
	done

fuzz: setup ## random packets and inputs, FUZZ_TIMES (50) as many as the tests take, with a new seed
	PROPTEST_CASES=$$(( 256 * $(FUZZ_TIMES) )) IPPM_PACKETS=$$(( 200000 * $(FUZZ_TIMES) )) \
	    cargo test --release --locked -p ippm -p conmond --lib
	seed=$${CONMON_FUZZ_SEED:-$$(date +%s)}; echo "CONMON_FUZZ_SEED=$$seed"; \
	    CONMON_FUZZ_SEED=$$seed CONMON_FUZZ_PACKETS=$$(( 200000 * $(FUZZ_TIMES) )) \
	    $(AS_ROOT) cargo test --release --locked -p tap --test root -- root_both_parsers_agree

compat: ## the tests on Debian's other kernels, emulated; some minutes each (COMPAT_KERNELS="PACKAGE ...")
	@scripts/setup.sh compat
	@$(MAKE) build
	@$(OUT)/compat $(COMPAT_KERNELS)

fmt: ## rewrite the sources in the house format
	cargo fmt --all

image: build ## container image conmon/conmond from the executables, FROM scratch
	@context=$$(mktemp -d); trap 'rm -rf "$$context"' EXIT; \
	cp $(PROGRAMS) LICENSE NOTICE "$$context"; \
	docker build --file packaging/Dockerfile --tag conmon/conmond:$(VERSION) --tag conmon/conmond:latest "$$context"

install: ## executables to PREFIX/bin, systemd unit to UNITDIR (build first; DESTDIR is honoured)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(PROGRAMS)
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/bin|$(PREFIX)/bin|' packaging/conmond.service > $(DESTDIR)$(UNITDIR)/conmond.service

uninstall: ## what install put there; run `conmonctl down` first
	rm -f $(DESTDIR)$(PREFIX)/bin/conmond $(DESTDIR)$(PREFIX)/bin/conmonctl $(DESTDIR)$(UNITDIR)/conmond.service

clean: ## remove what was built
	cargo clean
