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
# The long form of these tests: 1,000 container starts, 700 of them 50 at once, 10 s without conmond, 1,000 containers
# that share eleven addresses, 300 containers at once, and ten times as many requests to the API.
SOAK_FORM = CONMON_TEST_REQUIRE_ROOT=1 CONMON_STARTS_SINGLE=300 CONMON_STARTS_ROUNDS=14 CONMON_STARTS_AT_ONCE=50 \
    CONMON_OUTAGE_SECONDS=10 CONMON_STORM_CONTAINERS=1000 CONMON_CROWD=300 CONMON_API_EXAMPLES=1000
SOAK_TESTS = root_no_packet_is_missed root_a_crowd root_a_killed_daemon root_another_build root_a_storm_of_names root_the_api
FUZZ_TIMES ?= 50
# For each of libFuzzer's targets.
FUZZ_SECONDS ?= 60
PREFIX ?= /usr/local
UNITDIR ?= /etc/systemd/system

SHARE = $(DESTDIR)$(PREFIX)/share

.PHONY: help setup build test lint demo screenshots bench soak fuzz compat fmt image install uninstall clean

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

screenshots: setup ## docs/img/*.png anew, from a terminal on the demo, as root (needs chromium, about two minutes)
	@$(MAKE) build
	@$(SUDO) scripts/screenshots $(OUT)

bench: setup ## what a packet costs, what watching costs applications, how fast captures are read, what many hosts cost an etcd; as root, half an hour
	@$(MAKE) build
	$(AS_ROOT) cargo bench --workspace --locked --bench '*'
	CONMON_REGISTRY_ENDPOINTS=1000000 cargo test --release --locked -p conmond --test registry -- --nocapture look_ups

soak: setup ## accuracy in other networks; 1,000 container starts, 1,000 on few addresses, crash and upgrade of conmond; then all tests over and over, SOAK_MINUTES (60) long
	@$(MAKE) build
	@scripts/build-next
	for seed in 1 2 3 4 5 6 7 8; do \
	    IPPM_SEED=$$seed cargo test --release --locked -p ippm --test accuracy; \
	done
	$(SOAK_FORM) $(AS_ROOT) cargo test --workspace --release --locked --test system -- \
	    --test-threads=1 --nocapture $(SOAK_TESTS)
	CONMON_REGISTRY_SCHEDULES=10000 cargo test --release --locked -p conmond --lib -- --nocapture whatever_befalls
	@end=$$(( SECONDS + 60 * $(SOAK_MINUTES) )); round=0; \
	while (( SECONDS < end )); do \
	    round=$$(( round + 1 )); echo "== round $$round"; \
	    $(AS_ROOT) cargo test --workspace --release --locked --tests -- root_ --test-threads=1; \
	done

fuzz: setup ## libFuzzer on every parser and matcher, FUZZ_SECONDS (60) each; random inputs, FUZZ_TIMES (50) as many as the tests take
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz
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

install: ## executables, man pages and completions to PREFIX, systemd unit to UNITDIR (build first; DESTDIR is honoured)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(PROGRAMS)
	install -d $(DESTDIR)$(UNITDIR) $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	    $(SHARE)/fish/vendor_completions.d
	sed 's|/usr/local/bin|$(PREFIX)/bin|' packaging/conmond.service > $(DESTDIR)$(UNITDIR)/conmond.service
	$(OUT)/conmonctl man $(SHARE)/man/man1
	$(OUT)/conmond man $(SHARE)/man/man8
	for program in $(notdir $(PROGRAMS)); do \
	    $(OUT)/$$program completions bash > $(SHARE)/bash-completion/completions/$$program; \
	    $(OUT)/$$program completions zsh > $(SHARE)/zsh/site-functions/_$$program; \
	    $(OUT)/$$program completions fish > $(SHARE)/fish/vendor_completions.d/$$program.fish; \
	done

uninstall: ## what install put there; run `conmonctl down` first
	for program in $(notdir $(PROGRAMS)); do \
	    rm -f $(DESTDIR)$(PREFIX)/bin/$$program $(SHARE)/bash-completion/completions/$$program \
	        $(SHARE)/zsh/site-functions/_$$program $(SHARE)/fish/vendor_completions.d/$$program.fish; \
	done
	rm -f $(SHARE)/man/man1/conmonctl{,-*}.1 $(SHARE)/man/man8/conmond{,-*}.8 $(DESTDIR)$(UNITDIR)/conmond.service

clean: ## remove what was built
	cargo clean
