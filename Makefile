# make demo | dev | check | test | test-fuse | test-vm | test-kill | bench | build | install | uninstall | clean
# test-vm boots the service in a QEMU machine; minutes, and no part of `make test`, which boots it in a container.
# test-kill kills commands and keystored at every call that changes a file; `make test` takes a sample.
# Everything that is missing is installed: Debian packages by apt-get (as root or with sudo), the rest into .venv.

PYTHON ?= /usr/bin/python3
PREFIX ?= /opt/fusecrypt
DESTDIR ?=
# What `make install` adds to the product: pkcs11 (PKCS#11 tokens), ceremony (shares of a master key); with a comma, both.
EXTRAS ?=
comma := ,
KNOWN_EXTRAS := pkcs11 ceremony
UNKNOWN_EXTRAS := $(filter-out $(KNOWN_EXTRAS),$(subst $(comma), ,$(EXTRAS)))
ifneq ($(UNKNOWN_EXTRAS),)
$(error EXTRAS: no $(UNKNOWN_EXTRAS); wanted: $(KNOWN_EXTRAS))
endif
VENV := .venv
BIN := $(VENV)/bin
ENGINE := build/engine/.built
COMMANDS := fusecrypt fusecryptd fusecrypt-keystored fusecrypt-mountd
# Paths below $(SYSTEMD_LIB), where systemd, sysusers and tmpfiles look.
SYSTEMD_LIB := /usr/local/lib
SYSTEMD_FILES := $(wildcard systemd/system/* systemd/user/*) \
	$(patsubst systemd/%,%,$(wildcard systemd/sysusers.d/* systemd/tmpfiles.d/*))
GENERATORS := $(SYSTEMD_LIB)/systemd/system-generators

RUN_PACKAGES := python3 python3-venv fuse3 libgcrypt20 libargon2-1
BUILD_PACKAGES := gcc make pkg-config python3-dev libgcrypt20-dev libargon2-dev libfuse3-dev
DEMO_PACKAGES := cryptsetup-bin e2fsprogs fuse2fs util-linux mount
TEST_PACKAGES := $(DEMO_PACKAGES) clang libclang-rt-14-dev jq xz-utils strace gdb fio qemu-utils qemu-system-x86 cpio bc busybox-static \
	nbdkit libnbd-bin lz4 dmsetup xxd systemd systemd-container mmdebstrap acl attr procps \
	swtpm tpm2-tools softhsm2 opencryptoki
BENCH_PACKAGES := fio qemu-utils qemu-system-common nbdkit libnbd-bin cryptsetup-bin

C_SOURCES := $(wildcard dmcrypt/engine/src/*.c)
C_HEADERS := $(wildcard dmcrypt/engine/src/*.h)
C_FLAGS := -std=gnu17 -O2 -D_GNU_SOURCE -Wall -Wextra -Wconversion -Werror -fsyntax-only

.PHONY: demo dev check test test-fuse test-vm test-kill test-sanitize bench build install uninstall clean packages-% lint-c

demo: dev packages-DEMO
	$(BIN)/python tests/demo/demo.py

dev: $(ENGINE)

$(VENV)/.installed: pyproject.toml setup.py | packages-BUILD
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade setuptools wheel
	$(BIN)/pip install --quiet --disable-pip-version-check $$($(PYTHON) .ci/requirements.py)
	mkdir -p build/ns/fusecrypt
	for part in daemon dmcrypt keystore; do ln -sfn ../../../$$part build/ns/fusecrypt/$$part; done
	echo "$(CURDIR)/build/ns" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fusecrypt-dev.pth
	$(BIN)/python .ci/console_scripts.py $(BIN)
	touch $@

$(ENGINE): $(VENV)/.installed $(C_SOURCES) $(C_HEADERS) $(wildcard dmcrypt/engine/src/*.py)
	$(BIN)/python dmcrypt/engine/src/build_engine.py
	touch $@

# Asks dpkg first, so that a machine that has everything needs neither root nor a network.
packages-%:
	@missing=$$(dpkg-query -W -f '$${Package} $${Status}\n' $(RUN_PACKAGES) $($*_PACKAGES) 2>&1 \
		| awk '/no packages found/ { print $$NF } /not-installed|deinstall/ { print $$1 }'); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends $$missing > /dev/null; \
	fi

check: dev lint-c
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pyright

lint-c:
	for file in $(C_SOURCES); do $(CC) $(C_FLAGS) $$file || exit 1; done

test: dev packages-TEST
	$(BIN)/python -m pytest

test-fuse: dev packages-TEST
	$(BIN)/python -m pytest tests/fuse tests/fault

test-vm: dev packages-TEST
	FUSECRYPT_TEST_VM=1 $(BIN)/python -m pytest tests/systemd -k virtual_machine

test-kill: dev packages-TEST
	FUSECRYPT_TEST_KILL=all $(BIN)/python -m pytest tests/interop/test_kill_every_call.py tests/fault/test_kill_keystored.py

test-sanitize: dev packages-TEST
	$(BIN)/python -m pytest tests/sanitize

bench: dev packages-BENCH
	$(BIN)/python benchmarks/run.py --json build/benchmark.json --svg build/benchmark.svg $(BENCH)

build: dev
	rm -rf build/lib* build/bdist* build/temp*
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# A virtual environment of its own, with the commands linked into /usr/local/bin, and systemd's files where it reads
# what is not from a package. Nothing is enabled: see docs/manual/fusecrypt-systemd.7.md.
install: build
	$(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/python3 -m pip install --quiet --disable-pip-version-check --force-reinstall \
		"$$(echo dist/fusecrypt-*.whl)$(if $(EXTRAS),[$(EXTRAS)])"
	@# Commands name the interpreter where it will be, not where it was put.
	if [ -n "$(DESTDIR)" ]; then \
		grep -rlI --exclude-dir=__pycache__ '$(DESTDIR)$(PREFIX)' $(DESTDIR)$(PREFIX)/bin | xargs -r sed -i 's|$(DESTDIR)$(PREFIX)|$(PREFIX)|g'; fi
	install -d $(DESTDIR)/usr/local/bin
	for name in $(COMMANDS); do ln -sfn $(PREFIX)/bin/$$name $(DESTDIR)/usr/local/bin/$$name; done
	for file in $(SYSTEMD_FILES); do install -d $(DESTDIR)$(SYSTEMD_LIB)/$$(dirname $$file) && \
		sed 's|@PREFIX@|$(PREFIX)|g' systemd/$${file#systemd/} > $(DESTDIR)$(SYSTEMD_LIB)/$$file && \
		chmod 644 $(DESTDIR)$(SYSTEMD_LIB)/$$file || exit 1; done
	install -d $(DESTDIR)$(GENERATORS)
	ln -sfn $(PREFIX)/bin/fusecrypt-generator $(DESTDIR)$(GENERATORS)/fusecrypt-generator
	if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ] && command -v systemd-sysusers > /dev/null; then systemd-sysusers fusecrypt.conf; fi
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemd-tmpfiles --create fusecrypt.conf && systemctl daemon-reload; fi

uninstall:
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl --quiet disable --now fusecryptd.service fusecrypt-mountd.socket fusecrypt-mountd.service \
			fusecrypt-keystored.socket fusecrypt-keystored.service fusecrypt-engine.socket || true; fi
	for file in $(SYSTEMD_FILES); do rm -f $(DESTDIR)$(SYSTEMD_LIB)/$$file; done
	rm -f $(DESTDIR)$(GENERATORS)/fusecrypt-generator
	for name in $(COMMANDS); do \
		if [ "$$(readlink $(DESTDIR)/usr/local/bin/$$name)" = $(PREFIX)/bin/$$name ]; then rm $(DESTDIR)/usr/local/bin/$$name; fi; done
	test ! -e $(DESTDIR)$(PREFIX)/bin/fusecryptd || rm -r $(DESTDIR)$(PREFIX)
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

clean:
	rm -rf build dist dmcrypt/engine/*.so *.egg-info
